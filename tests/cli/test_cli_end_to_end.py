"""The command as a user starts it, on tiny checkpoints and the real model.

A start takes a second, so what a process of its own cannot change runs in this one (`here`).
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import smollm2_texts as texts
from fakes import Input
from long_work import beside_long_work

from sparity_edge import Generator, SamplingParams
from sparity_edge.cli.main import main
from sparity_edge.terminal.screen import neutral

Checkpoint = Callable[[str], Path]
Run = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = ("numpy", "numba", "tokenizers", "huggingface_hub", "gguf", "rich", "jinja2",
         "prompt_toolkit", "safetensors", "ml_dtypes", "platformdirs", "psutil")  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never in the clone: there `python -m` would take its folder for the installed package."""
    monkeypatch.chdir(tmp_path)


def start(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sparity_edge", *map(str, arguments)]


def run(*arguments: object, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    """What a process of the command gives."""
    done = subprocess.run(
        start(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run` without a process."""

    def command(
        *arguments: object, stdin: str = "", code: int | tuple[int, ...] = 0
    ) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(stdin.encode()), encoding="utf-8"))
        try:
            found = main(words)
        except SystemExit as exit_:
            found = int(exit_.code or 0)
        out, err = capsys.readouterr()
        assert found in (code if isinstance(code, tuple) else (code,)), err
        return subprocess.CompletedProcess(words, found, out, err)

    return command


def test_generate_writes_the_text_of_the_library_and_nothing_else(checkpoint: Checkpoint) -> None:
    folder = checkpoint("llama_untied")
    with Generator.load(folder) as generator:
        params = SamplingParams(temperature=0, max_tokens=20)
        expected = generator.generate("The little model", params).text
    done = run(
        "generate", folder, "--prompt", "The little model", "--temperature", 0, "--max-tokens", 20
    )  # fmt: skip
    assert done.stdout.rstrip("\n") == neutral(expected).rstrip("\n")
    assert beside_long_work(done.stderr) == "Cut after max_tokens=20.\n"


def test_the_same_seed_gives_the_same_text_for_any_number_of_threads(
    checkpoint: Checkpoint, here: Run
) -> None:
    def sample(seed: int, threads: int) -> str:
        return here(
            "generate", checkpoint("mistral_window"), "--prompt", "memory is slow",
            "--seed", seed, "--threads", threads, "--temperature", 1.5, "--max-tokens", 24,
            "--ignore-eos",
        ).stdout  # fmt: skip

    text = sample(5, 1)
    assert text == sample(5, 2) == sample(5, 3)
    assert text != sample(6, 1)


@pytest.mark.parametrize("command", ["chat", "generate"])
def test_a_pipe_is_the_prompt(command: str, checkpoint: Checkpoint, here: Run) -> None:
    options = (checkpoint("qwen2_window"), "--temperature", 0, "--max-tokens", 8, "--ignore-eos")
    piped = run(command, *options, stdin="reading words")
    assert piped.stdout.strip()
    assert beside_long_work(piped.stderr) == "Cut after max_tokens=8.\n"
    assert piped.stdout == here(command, *options, "--prompt", "reading words").stdout


def test_a_system_prompt_changes_the_answer(checkpoint: Checkpoint, here: Run) -> None:
    options = ("chat", checkpoint("llama_gqa"), "--prompt", "hello", "--temperature", 0,
               "--max-tokens", 12, "--ignore-eos")  # fmt: skip
    assert here(*options).stdout != here(*options, "--system", "Be brief.").stdout


def test_info_says_what_was_loaded(checkpoint: Checkpoint, here: Run) -> None:
    facts = json.loads(here("info", checkpoint("llama_odd"), "--json", "--threads", 1).stdout)
    assert facts["dtypes"] == ["int8"]
    assert (facts["hidden_size"], facts["vocab_size"], facts["threads"]) == (100, 301, 1)
    assert "hidden" in here("info", checkpoint("llama_odd")).stdout


def test_perplexity_has_exactly_the_promised_keys(checkpoint: Checkpoint, here: Run) -> None:
    Path("text.txt").write_text(texts.ESSAY, encoding="utf-8")
    done = here(
        "perplexity", checkpoint("llama_tied"), "--text", "text.txt", "--window", 100,
        "--windows", 3, "--json",
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert set(result) == {"perplexity", "stderr", "tokens", "active_weight_fraction"}
    assert result["tokens"] == 3 * 99
    assert result["active_weight_fraction"] == 1
    assert result["perplexity"] > 1


def test_one_window_still_gives_json(checkpoint: Checkpoint, here: Run) -> None:
    Path("text.txt").write_text(texts.PARAGRAPH, encoding="utf-8")
    done = here("perplexity", checkpoint("llama_tied"), "--text", "text.txt", "--window", 200,
               "--json")  # fmt: skip
    result = json.loads(done.stdout, parse_constant=pytest.fail)
    assert result["stderr"] is None


def test_convert_verify_and_use(checkpoint: Checkpoint, here: Run) -> None:
    source = checkpoint("llama_biases")
    assert here("convert", source, "packed", "--dtype", "int8", "--group", 64).stdout
    assert here("verify", "packed").stdout
    options = ("generate", "packed", "--prompt", "So it asks", "--temperature", 0,
               "--max-tokens", 9)  # fmt: skip
    text = here(*options).stdout
    refused = here("convert", source, "packed", code=1)
    assert "--force" in refused.stderr
    here("convert", source, "packed", "--dtype", "int8", "--group", 64, "--force")
    assert here(*options).stdout == text

    shard = next(Path("packed").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    damaged = here("verify", "packed", code=1)
    assert shard.name in damaged.stderr


def test_a_gguf_file_comes_through(smollm2_gguf: Path) -> None:
    done = run(
        "chat", smollm2_gguf, "--prompt", "What is the capital of France?", "--temperature", 0
    )  # fmt: skip
    assert done.stdout == "The capital of France is Paris.\n"
    assert not beside_long_work(done.stderr)


def test_the_cache_is_listed_and_cleared(
    checkpoint: Checkpoint, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(Path.cwd() / "cache"))
    folder = checkpoint("llama_mqa")
    here("info", folder)
    assert folder.name in here("cache", "list").stdout
    assert here("cache", "clear").stdout.startswith("1 removed")
    assert here("cache", "list").stdout.startswith("0 packed")


MISTAKES = [
    (["chat", "no-such-model", "--prompt", "x"], 1, "no-such-model"),
    (["chat", "{llama_small}", "--prompt", "x"], 1, "template"),
    (["generate", "{llama_tied}", "--prompt", "word " * 300], 1, "256"),
    (["generate", "{llama_tied}", "--prompt", ""], 1, "empty"),
    (["generate", "{llama_tied}", "--prompt", "x", "--sparsity", "0.95"], 1, "sparsity"),
    (["generate", "{llama_tied}", "--prompt", "x", "--temperature", "-1"], None, "temperature"),
    (["generate", "{llama_tied}", "--prompt", "x", "--threads", "0"], 1, "threads"),
    (["generate", "{llama_tied}", "--prompt", "x", "--max-context", "9999"], 1, "max_context"),
    (["generate", "{llama_tied}", "--prompt", "x", "--dtype", "int3"], 2, "int3"),
    (["generate", "{llama_tied}", "--prompt", "x", "--no-such-option"], 2, "--no-such-option"),
    (["perplexity", "{llama_tied}", "--text", "no-such-file"], 1, "no-such-file"),
    (["verify", "."], 1, "."),
    (["frobnicate"], 2, "frobnicate"),
]


@pytest.mark.parametrize(("words", "code", "named"), MISTAKES)
def test_a_mistake_is_one_sentence_on_stderr(
    words: list[str], code: int | None, named: str, checkpoint: Checkpoint, here: Run
) -> None:
    words = [str(checkpoint(word[1:-1])) if word.startswith("{") else word for word in words]
    started = run if named in ("no-such-model", "frobnicate") else here
    done = started(*words, code=code or (1, 2))
    assert done.stdout == ""
    assert named in done.stderr
    told = beside_long_work(done.stderr)
    assert told.startswith("sparity-edge: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize("what", ["import sparity_edge", "from sparity_edge.cli.main import build_parser; build_parser()"])  # fmt: skip  # noqa: E501
def test_import_and_help_load_nothing_heavy(what: str) -> None:
    code = f"import sys; {what}; print(*set({HEAVY!r}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_ends_an_answer_and_keeps_what_was_said(smollm2_gguf: Path) -> None:
    process = subprocess.Popen(
        start("generate", smollm2_gguf, "--prompt", "Once upon a time", "--ignore-eos"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in errors


def test_info_about_the_cpu_needs_no_model(here: Run) -> None:
    facts = json.loads(here("info", "--cpu", "--json", "--offline").stdout)
    assert {"cpu", "vectors", "compiler", "threads"} <= set(facts)
