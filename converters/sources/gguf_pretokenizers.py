r"""What `tokenizer.ggml.pre` stands for: regular expressions that split a text before BPE.

The names are those that llama.cpp knows (src/llama-vocab.cpp), with what it makes of each: which
expressions are applied one after the other, whether a word that is a token is taken whole, whether
a text begins with the begin token. Where llama.cpp only approximates the expression of a model's
own tokenizer.json (letters beyond ASCII by case in tekken and gpt-4o, `~` among \p{S}) and where
it leaves out NFC, the original counts. Not here: kinds that are no byte-level BPE (gemma4,
sarvam-moe, whitespace), that have no merges (kimi-k2), that split between digits without taking any
(superbpe), and those of architectures with lists of scripts of their own (afmoe, youtu).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DEFAULT = "default"  # what llama.cpp takes where tokenizer.ggml.pre is missing


@dataclass(frozen=True)
class Kind:
    """How a kind of byte-level tokenizer splits a text.

    Each of `patterns` is applied to what the one before it left; what it does not match stands
    alone.
    """

    patterns: tuple[str, ...]
    normalizer: str | None = None
    ignore_merges: bool = False  # a word that is a token is taken whole
    add_bos: bool = False  # where tokenizer.ggml.add_bos_token is missing

    def normalizer_step(self) -> dict[str, Any] | None:
        """The normalizer as tokenizer.json has it."""
        return {"type": self.normalizer} if self.normalizer else None

    def pre_tokenizer(self) -> dict[str, Any]:
        """The steps as tokenizer.json has them."""
        steps = [
            {"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False}
            for each in self.patterns
        ]
        return {"type": "Sequence", "pretokenizers": [*steps, byte_level_step(use_regex=False)]}


def byte_level_step(use_regex: bool) -> dict[str, Any]:
    """Bytes to the letters that stand for them, as tokenizer.json has it."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


# The alternatives that most expressions are made of.
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_WORD = _LEAD + r"\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
_SYMBOLS_LINE = _SYMBOLS + r"[\r\n]*"
_LINES = r"\s*[\r\n]+"
_BLANKS = r"\s+(?!\S)|\s+"
_SPACES = rf"{_LINES}|{_BLANKS}"
_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{_SYMBOLS}|{_BLANKS}"


def _tiktoken(digits: str) -> str:
    """The expression of cl100k (OpenAI's tiktoken), by how it takes digits."""
    return f"{_CONTRACTION}|{_WORD}|{digits}|{_SYMBOLS_LINE}|{_SPACES}"


def _cased(contraction: str, digits: str) -> str:
    """The expression of o200k: words end where a small letter meets a capital."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    words = f"{_LEAD}{upper}*{lower}+{contraction}|{_LEAD}{upper}+{lower}*{contraction}"
    return rf"{words}|{digits}|{_SYMBOLS}[\r\n/]*|{_SPACES}"


def _deepseek(end: str) -> str:
    """The last expression of DeepSeek V3, by how symbols and line ends are taken."""
    ascii_symbol = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
    words = rf"{ascii_symbol}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    return rf"{words}| ?[\p{{P}}\p{{S}}]+{end}|{_BLANKS}"


_DIGIT, _UP_TO_THREE = r"\p{N}", r"\p{N}{1,3}"
_HAN_AND_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
_HAN_AND_HANGUL = "[一-龥ࠀ-一가-\ud7ff]+"
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
_NO_LINES = _deepseek(rf"[\r\n]*|{_LINES}")
_TEKKEN = _cased("", _DIGIT)
_O200K = _cased(f"{_CONTRACTION}?", _UP_TO_THREE)
_HALVED_SPACES = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
# Letters that have two cases, as DeepSeek's tokenizer.json lists them.
_CASED_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕ"
    "ἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄ"
    "Ⰰ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_LLAMA3 = Kind((_tiktoken(_UP_TO_THREE),), ignore_merges=True, add_bos=True)
_LLAMA3_PLAIN = Kind((_tiktoken(_UP_TO_THREE),))
_QWEN2 = Kind((_tiktoken(_DIGIT),), normalizer="NFC")
_QWEN2_PLAIN = Kind((_tiktoken(_DIGIT),))
_SINGLE_DIGITS = Kind((_DIGIT, _GPT2))
_NAMES: dict[str, Kind] = {
    "gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum jina-es "
    "jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code modern-bert roberta-bpe": Kind((_GPT2,)),
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": _SINGLE_DIGITS,
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": _LLAMA3,
    "smaug-bpe dbrx chatglm-bpe": _LLAMA3_PLAIN,
    "glm4 glm5": Kind((_tiktoken(_UP_TO_THREE),), ignore_merges=True),
    "qwen2 deepseek-r1-qwen megrez kormo f2llmv2": _QWEN2,
    "stablelm2 hunyuan solar-open grok-2": _QWEN2_PLAIN,
    "tekken": Kind((_TEKKEN,), ignore_merges=True, add_bos=True),
    DEFAULT: Kind((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "falcon": Kind((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "deepseek-llm": Kind(
        (
            r"[\r\n]",
            rf"\s?[{_CASED_LETTERS}]+",
            "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
            r"\s+$",
            _HAN_AND_HANGUL,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": Kind((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_AND_HANGUL, _DIGIT)),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": Kind((_UP_TO_THREE, _HAN_AND_KANA, _NO_LINES)),
    "spark2_5": Kind((_UP_TO_THREE, _HAN_AND_KANA, _deepseek(r"|[\r\n]"), _DIGIT)),
    "gpt-4o llama4 kanana2 talkie minimax-m2": Kind((_O200K,)),
    "tiny_aya cohere2moe": Kind((r"\d{1,3}(?=(?:\d{3})*\b)", _O200K)),
    "minicpm5": Kind((_UP_TO_THREE, _tiktoken(r"\p{N}+")), ignore_merges=True),
    "laguna": Kind((r"[^\n]+|[\n]+", _tiktoken(_DIGIT))),
    "ufakzeka": Kind((f"{_WORD}|{_DIGIT}|{_SYMBOLS_LINE}|{_SPACES}",)),
    "bailingmoe bailingmoe2 llada-moe": Kind(
        (rf"{_CONTRACTION}|{_WORD}|{_DIGIT}|{_SYMBOLS_LINE}|\s*[\r\n]|{_BLANKS}",)
    ),
    "seed-coder": Kind((rf"{_CONTRACTION}|{_WORD}|{_DIGIT}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",)),
    "exaone-moe": Kind(
        (
            rf"{_CONTRACTION}|{_LEAD}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|{_DIGIT}|"
            rf"{_SYMBOLS}[\r\n/]?|\s*[\r\n]|{_BLANKS}",
        )
    ),
    "qwen35": Kind(
        (
            rf"{_CONTRACTION}|{_LEAD}[\p{{L}}\p{{M}}]+|{_DIGIT}|"
            rf" ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
        ),
        normalizer="NFC",
    ),
    "jais-2": Kind(
        (
            rf"{_CONTRACTION}|{_WORD}|{_UP_TO_THREE}|{_SYMBOLS_LINE}|{_LINES}|{_HALVED_SPACES}|"
            r"\s{1}",
        )
    ),
    "chameleon": Kind(
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            _DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        add_bos=True,
    ),
    "poro-chat bloom gpt3-finnish": Kind((_BLOOM,)),
    "viking": Kind((_BLOOM, _DIGIT)),
}
KINDS = {name: kind for names, kind in _NAMES.items() for name in names.split()}
