"""What `doctor` does: the facts of `doctor.examine` as sections for a reader, or as JSON.

The report is printed whatever is found; problems that keep models from running end it with an
error, advice does not.
"""

from __future__ import annotations

import contextlib
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.choices import SPARSE_LAYOUTS
from sparity_edge.cli.commands.loading import progress_bars, side_screen
from sparity_edge.cli.commands.plan_tables import gain_facts
from sparity_edge.errors import SparityError
from sparity_edge.measure.advice import advice
from sparity_edge.measure.doctor import examine
from sparity_edge.measure.expected import Expected, bytes_of_a_folder, bytes_of_a_token
from sparity_edge.system.headroom import size_text
from sparity_edge.system.threads import checked_threads
from sparity_edge.terminal.json_output import print_json
from sparity_edge.terminal.screen import one_line

if TYPE_CHECKING:
    from rich.console import Console

Facts = Mapping[str, Any]
NAME_WIDTH = 22
# Llama 3 8B, the model that most comparisons of local runtimes start from.
LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
PIPE_WIDTH = 100  # columns where stdout is no terminal
SHOWN_FEATURES = (
    "avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512vnni", "avx512bf16", "amx-int8",
    "neon", "dotprod", "i8mm", "bf16",
)  # fmt: skip


def doctor(arguments: Namespace) -> None:
    """`sparity-edge doctor`: what this machine is, what it gives, and what would help.

    Raises:
        SparityError: something keeps models from running here.
    """
    if arguments.threads is not None:
        checked_threads(arguments.threads)
    with progress_bars(arguments, side_screen()) as bars:
        facts = examine(arguments.threads, _models(arguments.model), bars)
    facts["advice"] = advice(facts)
    facts["gains"] = _gains(arguments.model)
    if arguments.json:
        print_json(facts)
    else:
        _show(facts)
    if facts["problems"]:
        raise SparityError(facts["problems"][0])


def _models(name: str) -> list[Expected]:
    """The model asked for, if it is packed here, and one that is typical."""
    known = [Expected("Llama 3 8B in int4", _bytes_of_llama_8b("int4"), packed=False)]
    if (nbytes := _packed_bytes(name)) is not None:
        read = f"{name} ({always} read, too)" if (always := _always_skipped(name)) else name
        known.insert(0, Expected(read, nbytes, packed=True))
    return known


def _packed_path(model: str) -> Path | None:
    """The packed folder or the cached pack of a model; None if there is none."""
    from converters.pack_options import PackOptions
    from converters.store import known, packed_path

    return packed_path(model) or known(model, PackOptions())


def _packed_bytes(model: str) -> int | None:
    """Bytes of a token of a packed folder or cached model; None if it is neither."""
    path = _packed_path(model)
    if path is None:
        return None
    try:
        return bytes_of_a_folder(path)
    except SparityError:  # damaged: whoever loads it is told
        return None


def _always_skipped(model: str) -> str | None:
    """What decoding of a packed model skips without a plan; None: nothing."""
    from sparity_edge.model.opening import open_folder
    from sparity_edge.model.zero_gates import skipped_always

    path = _packed_path(model)
    return None if path is None else skipped_always(open_folder(path))


def _gains(model: str) -> list[dict[str, Any]]:
    """What plans of the model gain here, as far as that was measured."""
    from converters.pack_options import PackOptions
    from converters.store import known, packed_path
    from sparity_edge.model.opening import open_folder
    from sparity_edge.plans.plan_file import plan_names, read_plan

    packs = [known(model, PackOptions(layout=layout)) for layout in SPARSE_LAYOUTS]
    found = []
    own = packed_path(model)
    for path in filter(None, packs) if own is None else [own]:
        with contextlib.suppress(SparityError):  # damaged: whoever loads it is told
            for name in plan_names(path):
                family = read_plan(open_folder(path), name)
                found += [{"plan": name, **each} for each in gain_facts(path, family)]
    return found


def _bytes_of_llama_8b(dtype: str) -> int:
    """Bytes that a token of Llama 3 8B would read if it were packed as `dtype`."""
    from converters.pack import choose_layout
    from converters.pack_options import PackOptions
    from sparity_edge.model.families import read_config

    options = PackOptions(dtype)
    shapes = read_config(LLAMA_8B).tensor_shapes()
    return bytes_of_a_token(
        {
            name: choose_layout(name, (shape[0], shape[1]), None, options)
            for name, shape in shapes.items()
            if len(shape) == 2
        }
    )


def _show(facts: Facts) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    for title, lines in _sections(facts).items():
        console.print(f"[bold]{title}[/bold]")
        for name, value in lines.items():
            _print_fact(console, name, value)
        console.print()
    _print_list(console, "What would make it faster here", facts["advice"], "[green]•[/green]")
    _print_list(console, "What keeps models from running", facts["problems"], "[red]✗[/red]")


def _print_fact(console: Console, name: str, value: str) -> None:
    from rich.text import Text

    lines = textwrap.wrap(one_line(value), max(20, console.width - NAME_WIDTH - 4)) or [""]
    for index, line in enumerate(lines):
        label = name if index == 0 else ""
        console.print(Text.assemble((f"  {label:<{NAME_WIDTH}}", "dim"), line), soft_wrap=True)


def _print_list(console: Console, title: str, sentences: list[str], mark: str) -> None:
    from rich.markup import escape

    if not sentences:
        return
    console.print(f"[bold]{title}[/bold]")
    for sentence in sentences:
        lines = textwrap.wrap(one_line(sentence), max(20, console.width - 6))
        for index, line in enumerate(lines):
            console.print(f"  {mark if index == 0 else ' '} {escape(line)}", soft_wrap=True)
    console.print()


def _sections(facts: Facts) -> dict[str, dict[str, str]]:
    return {
        "Processor": dict(_processor(facts)),
        "Threads": dict(_threads(facts)),
        "Memory": dict(_memory(facts)),
        "Expected speed": dict(_speeds(facts)),
        **({"Sparsity": dict(_plans(facts["gains"]))} if facts["gains"] else {}),
        "Storage": dict(_storage(facts["storage"])),
        "Versions": {
            "sparity-edge": facts["version"],
            "Python": facts["machine"]["python"],
            **facts["machine"]["packages"],
        },
    }


def _processor(facts: Facts) -> Iterator[tuple[str, str]]:
    machine, kernels = facts["machine"], facts["kernels"]
    present = [name for name in SHOWN_FEATURES if name in machine["cpu_features"]]
    yield "name", machine["cpu"]
    yield "features", f"{', '.join(present)} ({len(machine['cpu_features'])} in all)"
    yield "compiled for", f"{kernels['cpu']}, {kernels['vectors']}"
    yield "decoding", kernels["products_of_bytes"]
    yield "prompts", kernels["products_of_words"]
    yield "system", machine["system"]


def _threads(facts: Facts) -> Iterator[tuple[str, str]]:
    cores, power = facts["cores"], facts["power"]
    yield "cores", f"{cores['physical'] or '?'} physical, {cores['logical'] or '?'} logical"
    allowed = "all" if cores["allowed"] in (None, cores["logical"]) else str(cores["allowed"])
    quota = cores["container_quota"]
    limit = "" if quota is None else f", {quota:g} cores' worth of time in this container"
    yield "for this process", f"{allowed}{limit}"
    yield "threads", f"{facts['machine']['threads']} (default {cores['default_threads']})"
    yield "threading", "a team of threads of our own; Numba's threading layers are not used"
    yield "busy with others", f"{power['busy_cores']:.1f} cores"


def _memory(facts: Facts) -> Iterator[tuple[str, str]]:
    memory, measured = facts["memory"], facts["bandwidth"]
    limit = memory["container_limit_bytes"]
    yield (
        "total",
        size_text(memory["total_bytes"])
        + (f", {size_text(limit)} in this container" if limit else ""),
    )
    yield "available", size_text(memory["available_bytes"])
    if memory["swapped_bytes"]:
        yield "swapped out", size_text(memory["swapped_bytes"])
    if memory["huge_pages"]:
        yield "large pages", memory["huge_pages"]
    if measured is None:
        yield "streaming", "not measured"
        return
    yield "streaming, 1 thread", _speed(measured["one_thread_bytes_per_second"])
    if measured["threads"] > 1:
        low, high = (measured[f"{end}_bytes_per_second"] for end in ("slowest", "fastest"))
        yield (
            f"streaming, {measured['threads']} threads",
            f"{_speed(measured['all_threads_bytes_per_second'])} "
            f"(between {low / 1e9:.1f} and {high / 1e9:.1f})",
        )


def _speeds(facts: Facts) -> Iterator[tuple[str, str]]:
    """Upper bounds, and called so."""
    for model in facts["models"]:
        size, speed = size_text(model["bytes_per_token"]), model["tokens_per_second_at_most"]
        estimate = f"{size} a token" if model["packed"] else f"{size} a token if it were packed"
        bound = f"at most {speed:g} tokens a second; " if speed else ""
        yield model["name"], f"{bound}{estimate}"
    yield "", "An estimate: streaming speed by bytes of a token, dense and with a short context."


def _plans(gains: list[Facts]) -> Iterator[tuple[str, str]]:
    """Plans of the model, at each sparsity that was measured here."""
    for each in gains:
        kept = "" if each["speed"] > 1 else "; slower, so --sparsity decodes densely"
        loss = "KL not measured" if each["kl"] is None else f"KL {each['kl']:.2g}"
        threads = f"{each['threads']} thread{'s' * (each['threads'] != 1)}"
        yield (
            f"{each['plan']} at {100 * each['sparsity']:.0f} %, {threads}",
            f"{each['speed']:.2f}x as fast as dense decoding, {loss}{kept}",
        )


def _storage(storage: Facts) -> Iterator[tuple[str, str]]:
    cache, kernels = storage["cache"], storage["kernels"]
    free = "?" if cache["free_bytes"] is None else size_text(cache["free_bytes"])
    writable = "" if cache["writable"] else ", cannot be written"
    yield "models", f"{cache['path']}: {size_text(cache['used_bytes'])} used, {free} free{writable}"
    state = "compiled" if kernels["compiled"] else "not compiled yet"
    yield "kernels", f"{kernels['path']}: {size_text(kernels['used_bytes'])}, this version {state}"
    for each in storage["leftovers"]:
        yield "left by a dead run", f"{each['path']}: {size_text(each['bytes'])}"


def _speed(bytes_per_second: int) -> str:
    return f"{bytes_per_second / 1e9:.1f} GB/s"
