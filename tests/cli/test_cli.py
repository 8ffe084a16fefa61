"""The command line: what goes to stdout, what to stderr, and the exit codes."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import FakeGenerator
from plan_families import family

import sparity_edge
from converters.pack import PackOptions
from converters.store import prepare
from sparity_edge.chat.line_input import EditedInput, PlainInput, open_line_input
from sparity_edge.cli.commands import answering as commands
from sparity_edge.cli.commands import packing as packing_commands
from sparity_edge.cli.main import main
from sparity_edge.errors import SourceError
from sparity_edge.generation.settings import BY_NAME
from sparity_edge.packed.folder import open_packed
from sparity_edge.plans.plan_file import add_plan
from sparity_edge.terminal.json_output import print_json
from sparity_edge.terminal.screen import Bars, Screen

FAKES = str(Path(fakes.__file__))
Run = Callable[..., tuple[int, str, str]]


class Input(io.TextIOWrapper):
    """Standard input that may call itself a terminal."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture
def run(
    generator: FakeGenerator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """run(*words, stdin="") -> (exit code, stdout, stderr), with the fake generator."""
    monkeypatch.setitem(sys.modules, "sparity_edge.generation.generator", fakes.module(generator))

    def command(*words: str, stdin: str | bytes = "") -> tuple[int, str, str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(data), encoding="utf-8"))
        try:
            code = main(list(words))
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return command


def test_one_shot_writes_only_the_answer(run: Run, generator: FakeGenerator) -> None:
    assert run("chat", "--prompt", "Hi") == (0, "You said: Hi\n", "")
    assert generator.prompts == [[{"role": "user", "content": "Hi"}]]
    assert generator.loaded_with["model"] == "smollm2-135m"
    assert generator.closed


def test_a_pipe_is_one_message(run: Run, generator: FakeGenerator) -> None:
    code, out, err = run("chat", "m", "--system", "S", stdin="\ufefftwo\nlines\n".encode())
    assert (code, err) == (0, "")
    assert out == "You said: two\nlines\n"
    assert generator.prompts[0][0] == {"role": "system", "content": "S"}
    assert generator.loaded_with["model"] == "m"


def test_generate_continues_a_text_without_a_template(run: Run, generator: FakeGenerator) -> None:
    assert run("generate", "m", "-p", "Once")[:2] == (0, "You said: Once\n")
    assert run("generate", stdin=b"\xff upon")[:2] == (0, "You said: \ufffd upon\n")
    assert generator.prompts[0] == "Once"


def test_sampling_and_loading_options_arrive(run: Run, generator: FakeGenerator) -> None:
    words = "--temperature 0 --top-k 3 --top-p 0.5 --min-p 0.1 --repetition-penalty 1.1 --seed 4"
    words += " --presence-penalty -0.5 --frequency-penalty 0.2 --max-tokens 9 --stop A --stop B"
    words += " --logit-bias 5=-inf --logit-bias 6=1.5 --ignore-eos"
    loading = "--dtype int8 --threads 3 --max-context 77 --sparsity 0.25 --offline"
    assert run("chat", "-p", "x", *words.split(), *loading.split())[0] == 0
    params = generator.params[0]
    assert params is not None
    assert (params.temperature, params.top_k, params.seed, params.max_tokens) == (0, 3, 4, 9)
    assert (params.top_p, params.min_p, params.repetition_penalty) == (0.5, 0.1, 1.1)
    assert (params.presence_penalty, params.frequency_penalty) == (-0.5, 0.2)
    assert params.stop == ("A", "B")
    assert params.logit_bias == {5: float("-inf"), 6: 1.5}
    assert params.ignore_eos
    for key, value in (("dtype", "int8"), ("threads", 3), ("max_context", 77), ("sparsity", 0.25)):
        assert generator.loaded_with[key] == value
    assert generator.loaded_with["offline"] is True


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["chat", "-p", ""], "The prompt is empty"),
        (["chat"], "The prompt is empty"),
        (["chat", "-p", "x", "--temperature", "-1"], "temperature=-1.0 is out of range"),
        (["chat", "-p", "x", "--top-p", "nan"], "top_p=nan is out of range"),
        (["chat", "-p", "x", "--stop", ""], "stop has an empty string"),
        (["perplexity", "--text", "/no/such"], "No such file or directory"),
        (["verify", "/no/such"], "such"),
        (["convert", "/no/such", "/tmp/x"], "such"),
        (["convert", ""], "sparity-edge: '': there is no such file"),
        (["convert", "x" * 5000], f"'{'x' * 77}...': there is no such file"),
    ],
)
def test_faults_are_one_sentence_and_code_1(run: Run, words: list[str], sentence: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert err.startswith("sparity-edge: ")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["chat", "--nothing"],
        ["chat", "--temp", "1"],
        ["chat", "--top-k", "many"],
        ["chat", "--logit-bias", "5"],
        ["chat", "--dtype", "int3"],
        ["chat", "a", "b"],
        ["perplexity", "m"],
        ["convert"],
        ["cache"],
        ["calibrate", "m", "--methods", ","],
    ],
)
def test_usage_faults_are_one_sentence_and_code_2(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("sparity-edge: ")
    assert err.count("\n") == 1
    assert "--help`" in err


def test_faults_of_the_system_say_what_to_do(run: Run, tmp_path: Path) -> None:
    for path, remedy in ((tmp_path / "none", "check the spelling"), (tmp_path, "name a file")):
        if os.name == "nt" and path == tmp_path:
            continue  # Windows says that it may not be read
        code, out, err = run("perplexity", "x", "--text", str(path))
        assert (code, out) == (1, "")
        assert err.startswith(f"sparity-edge: {path}: ")
        assert err.endswith(f"; {remedy}.\n")
    assert run("convert", "x", "")[2] == (
        "sparity-edge: OUT is empty; name a folder, or leave it out.\n"
    )


def test_errors_of_loading_and_bugs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(error: Exception) -> None:
        monkeypatch.setitem(
            sys.modules,
            "sparity_edge.generation.generator",
            fakes.module(FakeGenerator(), error),  # type: ignore[arg-type]
        )

    refuse(SourceError("There is no\nmodel \x1b[2Jhere."))
    assert run("chat", "-p", "x") == (1, "", "sparity-edge: There is no model [2Jhere.\n")
    refuse(MemoryError())
    assert "not enough memory" in run("chat", "-p", "x")[2]
    refuse(PermissionError(13, "Permission denied", "/x"))
    assert (
        run("chat", "-p", "x")[2] == "sparity-edge: /x: Permission denied; check its permissions.\n"
    )
    refuse(ValueError("a bug"))
    code, _, err = run("chat", "-p", "x")
    assert code == 1
    assert err.startswith("sparity-edge: Internal error (ValueError: a bug)")
    assert "Traceback" not in err
    assert "Traceback" in run("chat", "-p", "x", "-v", "-v")[2]


def test_verbose_tells_on_stderr(run: Run) -> None:
    code, out, err = run("chat", "-p", "Hi", "-v")
    assert (code, out) == (0, "You said: Hi\n")
    assert "Loaded 90.0 MB from /models/fake in 0.25 s" in err
    assert "tok/s" in err


def test_a_cut_answer_says_so_with_v(run: Run, generator: FakeGenerator) -> None:
    generator.max_context = 8
    assert run("generate", "-p", "12345") == (0, "You\n", "")
    assert "context of 8 tokens is full" in run("generate", "-p", "12345", "-v")[2]


def test_ctrl_c_in_one_shot(run: Run, generator: FakeGenerator) -> None:
    generator.script = [["some ", "text", KeyboardInterrupt()]]
    assert run("chat", "-p", "x") == (130, "some text\n", "")
    generator.script = [KeyboardInterrupt()]
    assert run("chat", "-p", "x")[0] == 130


def test_ctrl_c_in_an_import_that_calls_it_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupted(_: str) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("importing the C-extensions failed") from None

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert run("info") == (130, "", "")
    assert signal.getsignal(signal.SIGINT) is before

    def broken(_: str) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(importlib, "import_module", broken)
    assert run("info")[0] == 1


def test_an_interrupt_that_is_ignored_stays_ignored(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignored(_: str) -> types.SimpleNamespace:
        signal.raise_signal(signal.SIGINT)
        return types.SimpleNamespace(info=lambda _: None)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        monkeypatch.setattr(importlib, "import_module", ignored)
        assert run("info") == (0, "", "")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_info(run: Run) -> None:
    assert json.loads(run("info", "--json")[1])["parameters"] == 134_515_008
    out = run("info")[1]
    assert "dtypes                 int4, int8\n" in out
    assert "parameters             134,515,008\n" in out


def test_perplexity(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}

    def perplexity(_: Any, text: str, **options: Any) -> Any:
        given.update(options, text=text)
        return types.SimpleNamespace(
            perplexity=12.5, stderr=0.1, tokens=99, active_weight_fraction=1.0
        )

    stand_in = types.ModuleType("sparity_edge.quality.perplexity")
    stand_in.perplexity = perplexity  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparity_edge.quality.perplexity", stand_in)
    text = tmp_path / "text"
    text.write_text("some text", encoding="utf-8")
    out = run("perplexity", "m", "--text", str(text), "--window", "64", "--windows", "2", "--json")[
        1
    ]
    assert json.loads(out) == {
        "perplexity": 12.5,
        "stderr": 0.1,
        "tokens": 99,
        "active_weight_fraction": 1.0,
    }
    assert (given["window"], given["windows"], given["text"]) == (64, 2, "some text")
    assert "12.5000 ± 0.1000" in run("perplexity", "--text", str(text))[1]
    text.write_bytes(b"ok \xff")
    assert "is not UTF-8 text (byte 3)" in run("perplexity", "--text", str(text))[2]


def test_convert_verify_and_cache(
    run: Run, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    source = str(checkpoint("llama_gqa"))
    code, out, err = run("convert", source, "--dtype", "int8")
    assert (code, out, err) == (0, "llama_gqa-int8\n", "")
    assert run("verify", "llama_gqa-int8")[:2] == (
        0,
        "llama_gqa-int8: all files are as the manifest says.\n",
    )
    assert run("convert", source, "--dtype", "int8")[0] == 1
    assert run("convert", source, "--dtype", "int8", "--force")[0] == 0
    assert run("cache", "list")[:2] == (0, f"0 packed, 0.0 MB, in {tmp_path / 'cache'}\n")
    assert run("cache", "clear")[:2] == (0, "0 removed, 0.0 MB freed.\n")
    assert run("cache", "clear", "nothing")[0] == 1
    (tmp_path / "llama_gqa-int8" / "config.json").write_bytes(b"{}")
    assert run("verify", "llama_gqa-int8")[0] == 1


def test_clearing_all_removes_what_is_ours(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, kernels = tmp_path / "cache", tmp_path / "numba"
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(cache))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(kernels))
    ours = [cache / "sources" / "x.gguf", cache / "chat_history", kernels / ("0a" * 8) / "x.nbi"]
    foreign = [cache / "letter.txt", kernels / "others" / "x.nbi"]
    for file in (*ours, *foreign):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 100_000)
    assert run("cache", "clear", "--all", "x")[0] == 1
    assert run("cache", "clear") == (0, "0 removed, 0.0 MB freed.\n", "")
    assert all(file.exists() for file in ours)
    out = run("cache", "clear", "--all")[1]
    assert "All else is removed too, 0.3 MB freed." in out
    assert not any(file.exists() for file in ours)
    assert all(file.exists() for file in foreign)
    assert run("cache", "clear", "--all")[0] == 0


def keys_of(value: Any) -> Iterator[str]:
    """All keys of a JSON value; those of versions, notes and plans are names."""
    for key, item in value.items() if isinstance(value, dict) else ():
        yield key
        if key not in ("packages", "notes", "active_weight_fraction_by_level"):
            yield from keys_of(item)
    for item in value if isinstance(value, list) else ():
        yield from keys_of(item)


def test_json_is_alone_on_stdout_and_has_plain_keys(
    run: Run, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    folder = prepare(str(checkpoint("llama_gqa")), PackOptions(layout="mixed"))
    add_plan(folder, family(open_packed(folder), "mixed"))
    found = {}
    for words in (
        "info", "info --cpu", f"verify {folder}", "cache list", f"plan list {folder}",
        f"plan show {folder} by-hand",
    ):  # fmt: skip
        code, out, err = run(*words.split(), "--json")
        assert (code, err) == (0, ""), words
        found[words.partition(f" {folder}")[0]] = json.loads(out)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", key) for key in keys_of(json.loads(out))), words
    files = [path.stat().st_size for path in folder.glob("[!.]*") if path.name != "sparity.json"]
    about = {"folder": str(folder), "files": len(files), "bytes": sum(files)}
    assert found["verify"] == about
    (pack,) = found["cache list"]["packs"]
    assert (pack["path"], pack["bytes"]) == (str(folder), found["cache list"]["bytes"])
    assert pack["options"]["layout"] == "mixed"
    assert found["plan show"]["levels"][0] == 0
    assert found["info --cpu"]["vectors"]


def test_json_has_no_nan_and_survives_any_encoding(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [float("nan"), (float("-inf"), 1.5)], "b": {"c": "\u65e5\x9b"}})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"a": [None, [None, 1.5]], "b": {"c": "\u65e5\x9b"}}


@pytest.mark.parametrize(
    ("source", "dtype", "out"),
    [
        ("org/name@main", "int4", "name-int4"),
        ("smollm2-135m@wheel", None, "smollm2-135m-packed"),
        ("/a/Model.Q4.gguf", "f32", "Model.Q4-f32"),
        ("/", None, "model-packed"),
        ("", None, "model-packed"),
    ],
)
def test_default_name_of_a_conversion(source: str, dtype: str | None, out: str) -> None:
    assert packing_commands._default_out(source, dtype) == out


def test_the_session_needs_a_terminal_and_has_a_header_of_three_lines(
    run: Run, generator: FakeGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Input, "terminal", True)
    monkeypatch.setattr(
        "sparity_edge.chat.line_input.open_line_input", lambda *_: fakes.ScriptedInput("Hi")
    )
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, _ = run("chat")
    assert code == 0
    assert len(commands.header(generator)) == 3  # type: ignore[arg-type]
    assert "fake-model · 135 M parameters · int4/int8, 90 MB" in out
    assert "context 200 tokens · 2 threads · dense" in out
    assert "You said: Hi" in out


def test_help_names_every_option(run: Run) -> None:
    text = run("chat", "--help")[1]
    assert all(option.flag in text for option in BY_NAME.values())
    assert "(default: 0.7)" in text
    for command in ("generate", "info", "perplexity", "convert", "verify", "cache"):
        assert run(command, "--help")[0] == 0
    assert run("--version")[1] == f"sparity-edge {sparity_edge.__version__}\n"


@pytest.mark.parametrize("code", ["import sparity_edge", "from sparity_edge.cli.main import main"])
def test_light_imports(code: str) -> None:
    heavy = "numpy numba jinja2 tokenizers rich prompt_toolkit huggingface_hub gguf platformdirs"
    check = f"{code}; import sys; print([m for m in {heavy.split()} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_help_is_quick() -> None:
    times = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "sparity_edge", "chat", "--help"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        times.append(time.monotonic() - started)
    assert min(times) < 0.3


def test_public_names() -> None:
    assert sparity_edge.__all__ == sorted(sparity_edge.__all__)
    for name in sparity_edge.__all__:
        assert getattr(sparity_edge, name) is not None
        assert name in dir(sparity_edge)
    with pytest.raises(AttributeError, match="nothing"):
        sparity_edge.nothing  # noqa: B018


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither SIGINT for children nor EPIPE")
def test_signals_and_pipes_in_a_process_of_its_own() -> None:
    words = [sys.executable, FAKES, "chat", "--prompt", "x"]
    endless = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert endless.stdout is not None
    assert endless.stderr is not None
    assert endless.stdout.read(10) == b"word word "
    endless.send_signal(signal.SIGINT)
    endless.stdout.read()
    assert endless.wait(10) == 130
    assert endless.stderr.read() == b""
    endless.stdout.close()
    endless.stderr.close()
    quitter = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert quitter.stdout is not None
    assert quitter.stderr is not None
    quitter.stdout.read(10)
    quitter.stdout.close()
    assert quitter.wait(10) == 141
    assert quitter.stderr.read() == b""
    quitter.stderr.close()


def test_output_that_the_terminal_cannot_show_is_replaced() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, FAKES, "chat", "--max-tokens", "1", "-p", "日本", "-v"]
    run = subprocess.run(words, env=environment, capture_output=True, check=True, timeout=30)
    assert run.stdout == b"word \n"
    assert b"?" in run.stderr  # the dots between the figures


@pytest.mark.skipif(os.name == "nt", reason="descriptors are not closed for children there")
@pytest.mark.parametrize(
    ("closed", "expected"),
    [
        (0, (1, b"", b"sparity-edge: The prompt is empty; give it with --prompt or on standard")),
        (1, (0, b"", b"")),
        (2, (0, b"word word \n", b"")),
    ],
)
def test_closed_streams(closed: int, expected: tuple[int, bytes, bytes]) -> None:
    words = ["sh", "-c", f'"$@" {closed}<&-', "sh"]
    words += [sys.executable, FAKES, "chat", "--max-tokens", "2"]
    run = subprocess.run(words, input=b"x", capture_output=True, check=False, timeout=30)
    assert (run.returncode, run.stdout, run.stderr[: len(expected[2])]) == expected


def test_bars_wait_half_a_second_and_vanish_where_nobody_looks() -> None:
    written = io.StringIO()
    with Bars(Screen(written, written), enabled=True, terminal=False) as bars:
        for done in range(5):
            bars("quick", done, 4)
    assert written.getvalue() == ""
    with Bars(Screen(written, written), enabled=True, terminal=False) as bars:
        bars("slow\x1b work", 0, 4)
        deadline = time.monotonic() + 10
        while not written.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)  # nothing is reported meanwhile
        assert written.getvalue() == "slow work ...\n"
        bars("slow\x1b work", 4, 4)
    with Bars(Screen(written, None), enabled=False, terminal=True) as bars:
        bars("unseen", 0, 4)
    assert written.getvalue() == "slow work ...\n"


def test_dumb_terminals_get_plain_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_line_input(None, ()), PlainInput)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(EditedInput, "__init__", lambda *_: 1 / 0)
    assert isinstance(open_line_input(tmp_path / "history", ()), PlainInput)


def test_edited_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    monkeypatch.setenv("TERM", "xterm")
    history = tmp_path / "deep" / "history"
    typed = {
        "hello\r": "hello",
        "a\\\rb\r": "a\nb",
        "a\x1b\rb\r": "a\nb",
        '"""a\rb"""\r': "a\nb",
        "\x1b[200~one\ntwo\\\n  three\x1b[201~\r": "one\ntwo\\\n  three",
        "\x1b[A\r": "one\ntwo\\\n  three",
        "日本 🙂\r": "日本 🙂",
    }
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        edited = EditedInput(history, ["/help", "/clear"])
        for keys, message in typed.items():
            pipe.send_text(keys)
            assert edited.read() == message
        for keys, error in (("\x03", KeyboardInterrupt), ("\x04", EOFError)):
            pipe.send_text(keys)
            with pytest.raises(error):
                edited.read()
    assert "+hello" in history.read_text(encoding="utf-8")
    if os.name != "nt":
        assert history.stat().st_mode & 0o077 == 0
