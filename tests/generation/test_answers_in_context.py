"""Answers as text: their first space behind a prompt, and stop strings that are special tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tiny
from tokenizers import Tokenizer, decoders, models, normalizers

from sparity_edge import Completion, Generator, SamplingParams

PIECES = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", *(f"<0x{b:02X}>" for b in range(256))]
WORDS = ["▁", "t", "h", "e", "▁the", "▁cat", "▁sat"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """A tiny model with a tokenizer as Llama 2 has it: the first space of a text is dropped."""
    vocabulary = {piece: number for number, piece in enumerate([*PIECES, *WORDS])}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(PIECES[:5])
    folder = tmp_path_factory.mktemp("models") / "sentencepiece"
    tiny.build(folder, "llama_small")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    backend.save(str(folder / "tokenizer.json"))
    with Generator.load(folder, dtype="f32", threads=1) as loaded:
        yield loaded


def saying(generator: Generator, *tokens: str, **options: object) -> SamplingParams:
    """Parameters under which the model says a token again and again, or one after the other."""
    found = [generator.tokenizer._backend.token_to_id(token) for token in tokens]
    options = {"max_tokens": 2, "ignore_eos": True, "presence_penalty": 100, **options}
    bias = {token: 9000.0 - 20 * place for place, token in enumerate(found)}
    return SamplingParams(temperature=0, logit_bias=bias, **options)  # type: ignore[arg-type]


def every_way(generator: Generator, prompt: str, params: SamplingParams) -> list[Completion]:
    steps = list(generator.stream(prompt, params))
    return [
        generator.generate(prompt, params),
        Completion.of(steps),
        *generator.generate_batch([prompt, generator.encode(prompt)], params),
        generator.generate([{"role": "user", "content": prompt}], params),
    ]


def test_the_first_space_of_an_answer_is_there(generator: Generator) -> None:
    for each in every_way(generator, "the", saying(generator, "▁cat", "▁sat")):
        assert each.text == " cat sat"
    alone = generator.generate([1], saying(generator, "▁cat", "▁sat"))
    assert alone.text == "cat sat"  # behind nothing but a special token a text begins


def test_a_stop_string_may_begin_with_the_first_space(generator: Generator) -> None:
    for each in every_way(generator, "the", saying(generator, "▁cat", "▁sat", stop=" cat")):
        assert (each.text, each.finish_reason, len(each.token_ids)) == ("", "stop", 1)


def test_a_character_of_bytes_comes_whole(generator: Generator) -> None:
    params = saying(generator, *(f"<0x{byte:02X}>" for byte in "日".encode()), max_tokens=3)
    for each in every_way(generator, "the", params):
        assert each.text == "日"


@pytest.mark.parametrize("stop", ["<|im_start|>", "cat<|im_start|>", "<|im_start|> sat", "</s>"])
def test_a_special_token_is_found_as_a_stop_string(generator: Generator, stop: str) -> None:
    special = "</s>" if stop == "</s>" else "<|im_start|>"
    params = saying(generator, "▁cat", special, "▁sat", stop=stop, max_tokens=4)
    for each in every_way(generator, "the", params):
        assert each.finish_reason == "stop"
        assert each.text == (" " if stop.startswith("cat") else " cat")


def test_text_on_both_sides_of_a_hidden_token_is_one_text(generator: Generator) -> None:
    words = ("▁cat", "<|im_start|>", "▁sat")
    assert generator.generate("the", saying(generator, *words, max_tokens=3)).text == " cat sat"
    found = generator.generate("the", saying(generator, *words, stop="t s", max_tokens=3))
    assert (found.text, found.finish_reason) == (" ca", "stop")
