"""Where the time of a token goes: embedding and norms, attention, FFN, LM head, selection, rest.

A token is a recorded program. Whole tokens and tokens in which one part has nothing to do run
interleaved, and what such a token lacks in time is the part's; the rest is barriers, less what
parts lose by standing side by side. Before each run the caches are emptied, or else what is left of
a small model would stay in them and every part seem too long. The state is that after real text,
with the same active channels throughout. A norm fused with what follows counts as a norm.

With --phases: what a token reads and how far its time is from that of streaming so many bytes, for
the whole of it and for all that runs between two barriers (`shared/traffic.py`).

    python bench/parts.py --dtype int4 dense auto:0.25 chess@0.5
    python bench/parts.py --model model.gguf --packs ./neurons centred@0.7
    python bench/parts.py --phases --packs ./neurons -- dense centred@0.7
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from shared import traffic
from shared.as_cpu import labelled
from shared.common import RESULTS, models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL
from shared.names import ATTENTION, DENSE, FFN, HEAD, NORMS, PARTS, REST, SELECTION, TOKEN
from shared.prepared import Kept
from shared.rows import packs
from shared.side import Side, holders

from sparity_edge.measure.ceiling import Memory
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import Samples, alternate, summary, table, timed
from sparity_edge.model.applied_plan import MOST_GAINS

EVICTED = 128 << 20  # bytes read to empty the caches, of all levels
OPERATIONS = {  # those that belong to one part wherever they stand
    "embed": NORMS, "rmsnorm": NORMS, "sparsify": SELECTION, "tally": SELECTION
}  # fmt: skip


def tagged_program(threads: int, decoding: bool) -> Any:
    """A Program whose recorder knows the part of each record: `tags`, of the part `now`."""
    from sparity_edge.kernels.decode.activations import rmsnorm_split
    from sparity_edge.kernels.program.program import Program
    from sparity_edge.kernels.program.recorder import Recorder

    class Tagging(Recorder):
        def __init__(self) -> None:
            self.tags: list[str] = []
            self.now = HEAD
            super().__init__(threads)

        def record(self, kernel: Any, *arguments: Any, **more: Any) -> None:
            super().record(kernel, *arguments, **more)
            del self.tags[len(self.records) - 1 :]  # of records that a fusion took away
            self.tags.append(NORMS if kernel is rmsnorm_split else self.now)

    class Tagged(Program):
        def linear(self, x: Any, matrix: Any, out: Any, *arguments: Any, **more: Any) -> None:
            # Nothing else than the exponents of a plan's gains is so narrow.
            before = self.recorder.now
            self.recorder.now = SELECTION if out.shape[1] <= MOST_GAINS else before
            super().linear(x, matrix, out, *arguments, **more)
            self.recorder.now = before

    for name, part in OPERATIONS.items():
        setattr(Tagged, name, _within(part, getattr(Tagged, name)))
    return Tagged(Tagging(), decoding)


def _within(part: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of a program, or half of a layer that is bound to one, within a part."""

    def run(first: Any, *arguments: Any, **more: Any) -> Any:
        recorder = getattr(first, "ops", first).recorder
        before, recorder.now = recorder.now, part
        result = operation(first, *arguments, **more)
        recorder.now = before
        return result

    return run


def tag_programs(model: Any) -> list[Any]:
    """Have a model record its tokens with tags; the list gets each program, the latest last."""
    programs: list[Any] = []

    def prepare(forward: Callable[[Any], None], decoding: bool = False) -> Kept:
        program = tagged_program(model.threads, decoding)
        forward(program)
        programs.append(program.recorder)
        team = model.machine.team
        return Kept(lambda patient: team.run(program.recorder, patient=patient))

    model.machine.prepare, decoder = prepare, model.decoder
    decoder.attention = _within(ATTENTION, decoder.attention)
    decoder.ffn = _within(FFN, decoder.ffn)
    model._passes.clear()  # what was recorded before
    return programs


def without(program: Any, parts: Collection[str]) -> Any:
    """A copy of a recorded program with nothing to do in some parts; barriers stay."""
    from sparity_edge.kernels.program.loops import CHUNKS, WEIGHTS
    from sparity_edge.kernels.program.recorder import Record, Recorder

    result = Recorder(program.threads)
    result.scratch_bytes, result.kept = program.scratch_bytes, program.kept
    result.operands = program.operands
    for record, tag in zip(program.records, program.tags, strict=True):
        row = list(record.row)
        if tag in parts:
            row[CHUNKS] = row[WEIGHTS] = 0
        result.records.append(Record(record.kernel, row))
    return result


def measure(side: Side, text: str, options: Any) -> dict[str, Any]:
    """Milliseconds of each part of a token at one setting."""
    generator, model = side.generator, side.generator.loaded.model
    ids = side.continuation(options.tokens)
    programs = tag_programs(model)
    generator.apply(side.settings[text])
    model.kv_cache.trim(0)
    model.read(side.prompt)
    for token in ids:
        model.read([token], sparse=True)
    whole = programs[-1]
    memory = Memory(model.threads, EVICTED)
    samples = clock(model.machine.team, whole, options.rounds, memory.streaming())
    memory.close()
    parts = {name: summary([1e3 * value for value in values]) for name, values in samples.items()}
    return {
        "milliseconds": parts,
        "active_weight_fraction": model.active_weight_fraction,
        "operations": len(whole.tags),
        "context": len(model.kv_cache),
    }


def clock(team: Any, whole: Any, rounds: int, evict: Callable[[], object]) -> Samples:
    """Seconds of each part, of the whole token and of the rest, round by round.

    Args:
        team: the threads that run the model's programs.
        whole: the token, as `tag_programs` recorded it.
        rounds: how often.
        evict: empties the caches.
    """
    idle = without(whole, PARTS)
    parts = [part for part in PARTS if part in whole.tags and part != SELECTION]

    def case(program: Any) -> Callable[[], float]:
        def run() -> float:
            evict()
            team.run(idle)  # threads wake up
            return timed(partial(team.run, program))

        return run

    # Lists of active channels stay those of the whole token where nothing selects.
    cases = {TOKEN: case(whole), SELECTION: case(without(whole, {SELECTION}))}
    cases |= {part: case(without(whole, {SELECTION, part})) for part in parts}
    found = alternate(cases, rounds)
    listed = found[SELECTION]
    samples = {part: [a - b for a, b in zip(listed, found[part])] for part in parts}
    if SELECTION in whole.tags:
        samples[SELECTION] = [a - b for a, b in zip(found[TOKEN], listed)]
    known = [sum(values) for values in zip(*samples.values())]
    return {**samples, REST: [a - b for a, b in zip(found[TOKEN], known)], TOKEN: found[TOKEN]}


def main() -> int:
    result = parser(__doc__, "parts")
    result.set_defaults(rounds=60)
    result.add_argument("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    result.add_argument("--label", help="of the model in the results (default: its name)")
    result.add_argument("--dtype", help="our number format; default: the file's own")
    result.add_argument("--packs", type=Path, nargs="*", default=[], metavar="FOLDER")
    result.add_argument("--phases", action="store_true", help="bytes against time, traffic.json")
    result.add_argument("--tokens", type=int, default=16, help="read before the one measured")
    result.add_argument("settings", nargs="*", default=[DENSE], metavar="SETTING")
    options = result.parse_args()
    threads = thread_count(options.threads)
    options.rounds = min(options.rounds, 30) if options.quick else options.rounds
    sparse = [text for text in options.settings if text != DENSE]
    places: dict[Any, list[str]] = {}
    if sparse:
        places = holders([*packs(options.model, options.dtype), *options.packs], sparse)
    if DENSE in options.settings:
        places = {options.model: [DENSE], **places}
    rows = {}
    for place, settings in places.items():
        for text in settings:
            say(f"{place} {text}")
            side = Side(place, [text], threads, options.dtype if place == options.model else None)
            rows[text] = (traffic.measure if options.phases else measure)(side, text, options)
            side.generator.close()
    label = labelled(options.label or f"{Path(options.model).stem} {options.dtype or ''}".strip())
    if options.phases and options.out == result.get_default("out"):
        options.out = RESULTS / "traffic.json"
    known = models_so_far(options.out)
    if options.phases:  # a model's settings may be measured one after the other
        rows = {**known.get(label, {}).get("rows", {}), **rows}
    known[label] = {"machine": machine(threads), "rounds": options.rounds, "rows": rows}
    save(options.out, {"models": known})
    print((traffic.show if options.phases else show)(known))
    return 0


def show(models: dict[str, Any]) -> str:
    """Milliseconds of every part."""
    head = ["model", "setting", *PARTS, REST, TOKEN]
    lines = []
    for label, part in models.items():
        for text, row in part["rows"].items():
            found = {name: each["median"] for name, each in row["milliseconds"].items()}
            cells = [f"{found[name]:.2f}" if name in found else "" for name in head[2:]]
            lines.append([label, text, *cells])
    return table(head, lines)


if __name__ == "__main__":
    raise SystemExit(main())
