"""Text to token ids and back, with the model's own tokenizer.json.

The arithmetic is the `tokenizers` library's; this module adds decoding in pieces, the tokens that
stand beside tokenizer.json (`special_tokens`), and the chat template (rendered by `chat_template`).
The files come from strangers: every failure is one sentence. Nothing here knows of the model's
weights or of its end-of-text policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import OptionError, SourceError, TemplateError, library_words
from sparity_edge.text.chat_template import ChatTemplate
from sparity_edge.text.special_tokens import add_special_tokens, read_special_tokens
from sparity_edge.text.token_ids import demand_rows
from sparity_edge.text.tokenizer_files import (
    ADDED_FILE,
    CONFIG_FILE,
    NAMED_FILE,
    TOKENIZER_FILE,
    check_sizes,
    parse_file,
    read_files,
    template_of,
)

if TYPE_CHECKING:
    import tokenizers

# A UTF-8 character has at most four bytes, so at most three tokens can wait for its end.
MAX_PARTIAL = 3
# A tokenizer that yields nothing but broken characters is decoded in runs of this many tokens.
MAX_PENDING = 32
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """A model's tokenizer; make one with `from_files` or `from_folder`."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special: Mapping[str, str],
        chat_template: str | None,
    ) -> None:
        self._backend = backend
        self._special = dict(special)  # "bos_token" -> "<s>", those that are set
        self._template: ChatTemplate | None = None
        self.chat_template = chat_template

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Tokenizer:
        """Build the tokenizer from the contents of its files.

        Args:
            files: "tokenizer.json", and whichever of the others of `TOKENIZER_FILES` there are.

        Raises:
            SourceError: a file is missing, too large, or not what its name says.
        """
        if TOKENIZER_FILE not in files:
            raise SourceError(f"The model has no {TOKENIZER_FILE}; fetch it again, with that file.")
        check_sizes(files)
        config = parse_file(files, CONFIG_FILE)
        special = read_special_tokens(
            config, parse_file(files, NAMED_FILE), parse_file(files, ADDED_FILE)
        )
        backend = _parse_tokenizer(files[TOKENIZER_FILE])
        add_special_tokens(backend, special)
        return cls(backend, special.texts(), template_of(files, config))

    @classmethod
    def from_folder(cls, path: str | Path) -> Tokenizer:
        """Build the tokenizer from the files in a folder; raises like `from_files`."""
        return cls.from_files(read_files(Path(path)))

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; the model's own vocabulary may be padded."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text, if tokenizer_config.json names one."""
        return self._special_id("bos_token")

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that tokenizer_config.json names as end of text: one or none."""
        token_id = self._special_id("eos_token")
        return () if token_id is None else (token_id,)

    def demand_rows(self, rows: int) -> None:
        """Refuse to serve a model whose embedding has no row for one of the tokenizer's ids.

        Raises:
            SourceError: an id is `rows` or more.
        """
        demand_rows(self._backend.get_vocab(with_added_tokens=True), self.encode(""), rows)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text.

        The names of special tokens inside the text ("<|im_end|>") become those tokens, as in
        transformers and for the same reason: templates are written that way. Whoever passes on
        text of strangers must take them out first.

        Args:
            text: any text.
            add_special_tokens: put the tokens around it that tokenizer.json asks for (BOS).
        """
        # Half a surrogate pair, which the library refuses, becomes a question mark.
        text = text.encode("utf-8", "replace").decode("utf-8")
        return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids.

        Bytes that form no character become U+FFFD. Ids that the tokenizer does not know (models
        pad their vocabulary) yield nothing, as in transformers.

        Raises:
            OptionError: an id is negative or does not fit into 32 bits.
        """
        try:
            return str(self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens))
        except (OverflowError, TypeError):
            raise OptionError(f"{list(ids)[:8]!r} are not all token ids.") from None

    def stream(self, *, skip_special_tokens: bool = True) -> DecodeStream:
        """A fresh decoder for ids that arrive one by one."""
        return DecodeStream(self, skip_special_tokens=skip_special_tokens)

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the one text that the model was trained on.

        Args:
            messages: mappings with "role" and "content", in order.
            add_generation_prompt: end with the beginning of the assistant's reply.

        Raises:
            TemplateError: the model has no chat template, or the template is wrong, refuses the
                messages or works for too long.
            OptionError: a message lacks "role" or "content".
        """
        if self.chat_template is None:
            raise TemplateError(
                "This model has no chat template, so it is not made for conversations; "
                "use `sparity-edge generate` (or Generator.generate with a text)."
            )
        if self._template is None:
            self._template = ChatTemplate(self.chat_template)
        return self._template.render(
            messages, self._special, add_generation_prompt=add_generation_prompt
        )

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> list[int]:
        """Ids of the rendered conversation; a BOS stands there only if the template writes it.

        Special tokens in a message's own text count as special tokens, see `encode`.
        Raises like `render_chat`.
        """
        text = self.render_chat(messages, add_generation_prompt=add_generation_prompt)
        return self.encode(text, add_special_tokens=False)

    def is_special(self, token_id: int) -> bool:
        """Whether an id is a special token, which `decode` leaves out unless asked."""
        token = self._backend.get_added_tokens_decoder().get(token_id)
        return token is not None and bool(token.special)

    def _special_id(self, name: str) -> int | None:
        token = self._special.get(name)
        return None if token is None else self._backend.token_to_id(token)


class DecodeStream:
    """Text of ids that arrive one by one; together the pieces equal `Tokenizer.decode` of all.

    Why not `tokenizers.decoders.DecodeStream`: that one has no way to ask for what it holds back
    at the end, holds back a U+FFFD that the text really contains, and after a skipped special
    token forgets that the text has begun.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        added = tokenizer._backend.get_added_tokens_decoder()
        special = {key for key, token in added.items() if token.special}
        self._skipped = special if skip_special_tokens else set()
        # The tokens of the last piece and those since: a decoder may treat the first token of a
        # text in a way of its own (SentencePiece drops its space), so there is always one before.
        self._window: list[int] = []
        self._context = 0  # how many of the window are wholly shown
        self._shown = 0  # how many characters of the window's text are shown

    def push(self, token_id: int) -> str:
        """The text that this id adds; "" while a character is incomplete."""
        if token_id in self._skipped:
            return ""
        self._window.append(token_id)
        text = self._tokenizer.decode(self._window, skip_special_tokens=False)
        pending = len(self._window) - self._context
        held = 0 if pending > MAX_PENDING else _partial(text)
        if held and pending <= MAX_PARTIAL:
            return ""  # SentencePiece shows a whole run of bytes as broken until it is complete
        piece = text[self._shown : len(text) - held]
        if held:
            self._shown = max(self._shown, len(text) - held)
        elif piece or pending > MAX_PENDING:
            self._settle()
        return piece

    def flush(self) -> str:
        """What is held back, an incomplete character as U+FFFD, for when no more ids come."""
        text = self._tokenizer.decode(self._window, skip_special_tokens=False)
        piece = text[self._shown :]
        self._window, self._context, self._shown = [], 0, 0
        return piece

    def _settle(self) -> None:
        """Keep only the tokens of the piece just shown, as context for the next."""
        self._window = self._window[self._context :]
        self._context = len(self._window)
        self._shown = len(self._tokenizer.decode(self._window, skip_special_tokens=False))


def _partial(text: str) -> int:
    """How many U+FFFD at the end may still become a character."""
    tail = text[-MAX_PARTIAL:]
    return len(tail) - len(tail.rstrip(REPLACEMENT))


def _parse_tokenizer(content: bytes) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_buffer(content)
        backend.no_truncation()
        backend.no_padding()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises bare Exception, and panics on some input
        raise SourceError(
            f"{TOKENIZER_FILE} is damaged ({library_words(error)}); fetch it again."
        ) from None
    return backend
