"""Hidden states that the screen of an LM head is made of: what the head reads over a little text.

Text: passages of 64 tokens out of the help of Python, as it stands and as talks in the model's chat
template, and out of Python's own modules; in half of what stands as it is, every other 8 tokens are
drawn at random. For SmolLM2 on WikiText-2, C4, code and chats 1,024 such tokens served as well as
4,096 of the help alone.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import textwrap
from collections.abc import Callable, Iterator

import numpy as np

from sparity_edge.arrays import Floats
from sparity_edge.errors import TemplateError
from sparity_edge.model.forward_pass import ForwardPass
from sparity_edge.model.layer_run import Windows
from sparity_edge.model.model import Model
from sparity_edge.text.default_text import default_documents
from sparity_edge.text.tokenizer import Tokenizer

WINDOW, PASSAGE = 256, 64  # tokens
TEXT, TALKS, CODE = 6, 6, 4  # passages of each
RANDOM = 8  # tokens that are drawn, then as many of the text
CHARACTERS = 16  # of a token at most, on average
TALK = 128  # tokens of a talk that are used
PART = 400  # characters of what is said in it
EVERY = 8  # of so many documents one becomes a talk


def hidden_states(model: Model, windows: Windows, told: Callable[[], None]) -> Floats:
    """What the head reads after each token of some windows, (tokens, hidden).

    Args:
        model: its KV cache is emptied.
        windows: of `text_windows`.
        told: called after each.
    """
    cache, config = model.kv_cache, model.config
    run = ForwardPass(model.decoder, model.machine, 1, windows.shape[1], 1)
    cache.trim(0)
    cache.reserve(windows.shape[1])
    found = []
    for window in windows:
        cache.trim(0)
        run.run(window.tolist(), [cache])
        found.append(run.buffers.x.copy())
        told()
    cache.trim(0)
    residual = np.concatenate(found)
    mean = (residual**2).mean(axis=1, keepdims=True)
    states: Floats = residual / np.sqrt(mean + config.rms_norm_eps) * model.decoder.norm
    return states


def text_windows(model: Model, tokenizer: Tokenizer) -> Windows:
    """Some text that the model's head is to be judged by, (windows, tokens of one).

    Raises:
        OptionError: this Python came without its help texts.
    """
    config = model.config
    window = min(WINDOW, config.max_position_embeddings)
    documents = default_documents()
    text = _passages("\n".join(documents), TEXT, tokenizer)
    drawn = np.random.default_rng(0).integers(0, config.vocab_size, text.shape)
    mixed = (np.arange(PASSAGE) // RANDOM % 2 == 1) & (np.arange(len(text)) % 2 == 1)[:, None]
    parts = [np.where(mixed, drawn, text), _passages(_modules(), CODE, tokenizer)]
    with contextlib.suppress(TemplateError):  # models without chats are not asked for any
        talks = [tokenizer.encode_chat(talk)[:TALK] for talk in _talks(documents[::EVERY])]
        parts.append(_cut([token for talk in talks for token in talk]))
    tokens = np.concatenate(parts).reshape(-1)
    windows: Windows = tokens[: len(tokens) // window * window].reshape(-1, window)
    return windows


def _passages(text: str, count: int, tokenizer: Tokenizer) -> Windows:
    """Passages that are spread evenly over a text, (count or less, PASSAGE)."""
    size = PASSAGE * CHARACTERS
    starts = np.linspace(0, max(0, len(text) - size), count).astype(int)
    places = [text[start : start + size] for start in starts]
    encoded = [tokenizer.encode(place, add_special_tokens=False)[:PASSAGE] for place in places]
    whole = [each for each in encoded if len(each) == PASSAGE]
    return np.array(whole, dtype=np.int64).reshape(-1, PASSAGE)


def _modules() -> str:
    """The source of some modules of Python; nothing where they come without."""
    found = []
    for module in (argparse, textwrap):
        with contextlib.suppress(OSError, TypeError):
            found.append(inspect.getsource(module))
    return "\n".join(found)


def _cut(ids: list[int]) -> Windows:
    """Passages that are spread evenly over the ids of talks."""
    starts = np.linspace(0, len(ids) - PASSAGE, TALKS).astype(int)
    return np.array([ids[start : start + PASSAGE] for start in starts], dtype=np.int64)


def _talks(documents: list[str]) -> Iterator[list[dict[str, str]]]:
    """Documents as talks: a question, an answer, and another question."""
    for document in documents:
        parts = [part[:PART] for part in document.strip().split("\n\n") if part] or ["?"]
        answer = "\n\n".join(parts[1:3]) or parts[0]
        yield [
            {"role": "user", "content": parts[0]},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": parts[-1]},
        ]
