#!/usr/bin/env bash
# tokenizers 0.23.3: the normalizer Precompiled loses a combining mark behind a character that it maps.
#
# Precompiled holds the character map of a SentencePiece model (nmt_nfkc, for one). It looks a whole
# grapheme up and takes the map's shortest match at its beginning for the result, so that what follows
# in the grapheme is dropped. sentencepiece itself takes the longest match and goes on behind it.
#
# Seen: "①" with U+0308 is normalised to "1" by Precompiled, and to "1" and U+0308 by sentencepiece.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
"$place/venv/bin/python" - <<'PYTHON'
import io

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers

model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["a b c d e f g"] * 9), model_writer=model, model_type="bpe",
    vocab_size=300, byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    normalization_rule_name="nfkc", add_dummy_prefix=False,
)
spec = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue()).normalizer_spec
text = "\u2460\u0308"
pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
expected = pieces.decode(pieces.encode(text))
found = normalizers.Precompiled(spec.precompiled_charsmap).normalize_str(text)
print("sentencepiece", ascii(expected), "Precompiled", ascii(found))
assert expected == "1\u0308"
assert found == "1", "no longer so"
PYTHON
