#!/usr/bin/env bash
# tokenizers 0.23.3: where a vocabulary has gaps, an added token gets an id that another token has.
#
# get_vocab_size() counts tokens; it is not one more than the largest id, so logits of that many rows
# are too few for ids beyond. add_tokens numbers new tokens from that count on. Where ids have gaps,
# as after unused entries were cut out of a vocabulary, the new token takes the id of a token that is
# in use: both are encoded as the same number, and decoding gives the new one.
#
# Seen: size 3, largest id 9; "b" has id 3; the added "new" gets 3 as well; id 3 decodes to "new".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet tokenizers==0.23.3
"$place/venv/bin/python" - <<'PYTHON'
from tokenizers import Tokenizer, models

tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 3, "c": 9}, unk_token="a"))
size, largest = tokenizer.get_vocab_size(), max(tokenizer.get_vocab().values())
print("size", size, "largest id", largest, "b", tokenizer.token_to_id("b"))
assert (size, largest) == (3, 9)
assert tokenizer.add_tokens(["new"]) == 1
ids = [tokenizer.encode(text).ids for text in ("b", "new")]
print("b and new are encoded as", ids, "and 3 is decoded as", tokenizer.decode([3]))
assert ids == [[3], [3]] and tokenizer.decode([3]) == "new", "no longer so"
PYTHON
