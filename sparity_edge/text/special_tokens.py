"""Tokens that stand beside tokenizer.json, in the order of precedence that transformers 5 has.

tokenizer_config.json names tokens by part ("eos_token"), in lists and in `added_tokens_decoder`;
where that last one is absent, special_tokens_map.json and added_tokens.json are read too. The
result is put into the tokenizer by the calls that transformers makes, so that the ids are the
same. The files come from strangers: their size is bounded and their texts are checked. Knows
nothing of chat templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import SourceError

if TYPE_CHECKING:
    import tokenizers

NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
# Gemma 3 lists 6,415 tokens, nearly all of which its tokenizer.json has as well. Adding one costs
# the library a look at all that there are.
MAX_LISTED = 65_536
MAX_ADDED = 4_096
MAX_TOKEN_CHARACTERS = 1_024
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass
class SpecialTokens:
    """What the files say: tokens by part, further ones, and those that are given an id."""

    named: dict[str, Any] = field(default_factory=dict)  # "eos_token" -> a text or an object
    extra: list[Any] = field(default_factory=list)
    listed: dict[int, Any] = field(default_factory=dict)  # those that are given an id
    decoder: bool = False  # whether `added_tokens_decoder` lists all of them

    def texts(self) -> dict[str, str]:
        """The tokens by part, as a chat template sees them."""
        return {name: content_of(value) for name, value in self.named.items()}


def read_special_tokens(
    config: Mapping[str, Any], named: Mapping[str, Any], added: Mapping[str, Any]
) -> SpecialTokens:
    """Merge the three files; any of them may be empty.

    Args:
        config: content of tokenizer_config.json.
        named: content of special_tokens_map.json.
        added: content of added_tokens.json, token to id.

    Raises:
        SourceError: a token is no text, or there are too many or too long ones.
    """
    merged = dict(config)
    if merged.get("additional_special_tokens") and not merged.get("extra_special_tokens"):
        merged["extra_special_tokens"] = merged.pop("additional_special_tokens")
    listed = merged.get("added_tokens_decoder")
    if listed is None:
        _merge_named(merged, named)
    found = SpecialTokens(*_parts(merged))
    if isinstance(listed, Mapping):
        found.decoder = True
        found.listed = {_id(key): value for key, value in listed.items()}
    elif listed is not None:
        raise SourceError(
            "tokenizer_config.json: added_tokens_decoder is no object; fetch it again."
        )
    else:
        special = {content_of(value) for value in (*found.named.values(), *found.extra)}
        found.listed = {
            _id(key): {
                "content": token,
                "special": token in special,
                "normalized": token not in special,
            }
            for token, key in added.items()
        }
    _check(found)
    return found


def add_special_tokens(backend: tokenizers.Tokenizer, found: SpecialTokens) -> None:
    """Put tokens into the tokenizer that tokenizer.json lacks, or has with other flags.

    Ids go on where the vocabulary ends, in the order of the ids that the files give.

    Raises:
        SourceError: there are too many of them.
    """
    present = backend.get_added_tokens_decoder()
    same = {_look(token) for token in present.values()}
    listed = {key: _token(value) for key, value in found.listed.items()}
    if not found.decoder:
        listed.update(present)
    adding = [token for _, token in sorted(listed.items(), key=itemgetter(0))]
    known = {token.content for token in (*present.values(), *adding)}
    for value in (*found.named.values(), *found.extra):
        if content_of(value) not in known:
            adding.append(_token(value, special=True))
            known.add(content_of(value))
    named = {content_of(value) for value in found.named.values()}
    for token in adding:
        token.special = token.special or token.content in named
    # The library looks at all of its tokens for each one: those that change nothing are left out.
    adding = [token for token in adding if _look(token) not in same]
    if len(adding) > MAX_ADDED:
        raise SourceError(
            f"tokenizer_config.json adds {len(adding)} tokens that tokenizer.json does not have, "
            f"more than the {MAX_ADDED} of any tokenizer; fetch both files again."
        )
    if adding:
        backend.add_tokens(adding)


def content_of(value: Any) -> str:
    """The text of a token, which is a string or an object with "content".

    Raises:
        SourceError: it is neither, or is half of a surrogate pair, which no tokenizer can hold.
    """
    content = value.get("content") if isinstance(value, Mapping) else value
    if not isinstance(content, str) or len(content) > MAX_TOKEN_CHARACTERS:
        raise SourceError(
            "tokenizer_config.json or a file beside it names a token that is no text of at most "
            f"{MAX_TOKEN_CHARACTERS} characters; fetch the tokenizer's files again."
        )
    try:
        content.encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"tokenizer_config.json or a file beside it names the token {ascii(content)[:80]}, "
            "which is not valid Unicode; fetch the tokenizer's files again."
        ) from None
    return content


def _merge_named(merged: dict[str, Any], named: Mapping[str, Any]) -> None:
    """special_tokens_map.json over tokenizer_config.json; lists of further tokens are joined."""
    for key, value in named.items():
        if key == "extra_special_tokens" and isinstance(value, list):
            before = merged.get(key)
            before = before if isinstance(before, list) else []
            value = [*before, *(each for each in value if each not in before)]
        if isinstance(value, Mapping) and key != "extra_special_tokens":
            value = {**value, "special": True}
        merged[key] = value


def _parts(merged: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Tokens by part, those a model has of its own ("image_token") included, and further ones."""
    extra = merged.get("extra_special_tokens", merged.get("additional_special_tokens"))
    own = dict(extra) if isinstance(extra, Mapping) else {}
    parts = {name: merged.get(name) for name in NAMED}
    for key, value in (*merged.items(), *own.items()):
        if key in own or (key.endswith("_token") and key not in parts):
            parts[key] = value
    named = {key: value for key, value in parts.items() if _is_token(value)}
    return named, list(extra) if isinstance(extra, list) else []


def _is_token(value: Any) -> bool:
    """Whether it is a token at all: null, true and numbers stand there in some files."""
    return isinstance(value.get("content") if isinstance(value, Mapping) else value, str)


def _id(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise SourceError(
            "tokenizer_config.json or added_tokens.json gives a token an id that is no whole "
            "number; fetch the tokenizer's files again."
        ) from None


def _check(found: SpecialTokens) -> None:
    count = len(found.named) + len(found.extra) + len(found.listed)
    if count > MAX_LISTED:
        raise SourceError(
            f"tokenizer_config.json and the files beside it name {count} tokens, more than the "
            f"{MAX_LISTED} of any tokenizer; fetch the tokenizer's files again."
        )
    for value in (*found.named.values(), *found.extra, *found.listed.values()):
        content_of(value)


def _token(value: Any, special: bool = False) -> tokenizers.AddedToken:
    from tokenizers import AddedToken

    given = value if isinstance(value, Mapping) else {}
    flags = {key: given[key] for key in _FLAGS if isinstance(given.get(key), bool)}
    return AddedToken(content_of(value), **{"special": special, **flags})


def _look(token: tokenizers.AddedToken) -> tuple[Any, ...]:
    return (token.content, *(getattr(token, flag) for flag in _FLAGS))
