"""Text to token ids and back, with the model's own tokenizer.json.

The arithmetic is the `tokenizers` library's; this module adds decoding in pieces, the tokens that
stand beside tokenizer.json (`special_tokens`), and the chat template (rendered by `chat_template`).
The files come from strangers: every failure is one sentence. Nothing here knows of the model's
weights or of its end-of-text policy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import OptionError, SourceError, TemplateError, library_words
from sparity_edge.text.chat_template import ChatTemplate
from sparity_edge.text.decode_stream import DecodeStream
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
from sparity_edge.text.tool_calls.tool_use import ToolUse

if TYPE_CHECKING:
    import tokenizers


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

    def to_json(self) -> str:
        """All of the tokenizer in the form of tokenizer.json, with the special tokens beside it."""
        return str(self._backend.to_str())

    def stream(
        self,
        *,
        skip_special_tokens: bool = True,
        context: Sequence[int] = (),
        shown: Collection[str] = (),
    ) -> DecodeStream:
        """A fresh decoder for ids that arrive one by one.

        Args:
            skip_special_tokens: leave special tokens out, as `decode` does.
            shown: those that are not left out.
            context: ids that the arriving ones continue; their own text is not repeated.
        """
        added = self._backend.get_added_tokens_decoder()
        hidden = {key: token.content for key, token in added.items() if token.special}
        special = {key: text for key, text in hidden.items() if text not in shown}
        return DecodeStream(
            partial(self.decode, skip_special_tokens=False),
            special if skip_special_tokens else {},
            context,
        )

    @cached_property
    def tool_use(self) -> ToolUse:
        """What the chat template makes of tools and their calls; raises like `render_chat`."""

        def render(messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
            return self.render_chat(messages, template_args=variables)

        render([{"role": "user", "content": "Hello"}], {})
        return ToolUse(self.chat_template or "", render)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        template_args: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as the one text that the model was trained on.

        Args:
            messages: mappings with "role" and "content", in order.
            add_generation_prompt: end with the beginning of the assistant's reply.
            template_args: the template's own variables, such as {"enable_thinking": False}.

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
            messages,
            self._special,
            add_generation_prompt=add_generation_prompt,
            variables=template_args,
        )

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        template_args: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Ids of the rendered conversation; a BOS stands there only if the template writes it.

        Special tokens in a message's own text count as special tokens, see `encode`.
        Raises like `render_chat`.
        """
        text = self.render_chat(
            messages, add_generation_prompt=add_generation_prompt, template_args=template_args
        )
        return self.encode(text, add_special_tokens=False)

    def difference(self, other: Tokenizer) -> str | None:
        """Where the vocabulary of another tokenizer is not this one's; None: nowhere."""
        mine, theirs = (
            {token: text for text, token in each._backend.get_vocab().items()}
            for each in (self, other)
        )
        for token in sorted(mine.keys() | theirs.keys()):
            one, two = (
                repr(each[token][:40]) if token in each else "missing" for each in (mine, theirs)
            )
            if one != two:
                return f"token {token} is {one} in its vocabulary and {two} in that of the draft"
        return None

    def is_special(self, token_id: int) -> bool:
        """Whether an id is a special token, which `decode` leaves out unless asked."""
        token = self._backend.get_added_tokens_decoder().get(token_id)
        return token is not None and bool(token.special)

    def added_token_id(self, text: str) -> int | None:
        """Id of the text where it is a token that stands beside the vocabulary, else None."""
        token = self._backend.token_to_id(text)
        return token if token in self._backend.get_added_tokens_decoder() else None

    def _special_id(self, name: str) -> int | None:
        token = self._special.get(name)
        return None if token is None else self._backend.token_to_id(token)


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
