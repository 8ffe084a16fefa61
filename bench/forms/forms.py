"""Every family in every form: does it load, are logits and greedy text those of transformers?

    python bench/forms/forms.py --oracle PYTHON              # a Python with torch and transformers
    python bench/forms/forms.py --oracle PYTHON --only phi3  # one family; the others stay

A checkpoint with random weights in small sizes is written in each form. transformers computes
logits of 40 ids and the greedy text behind them, in float32, from the floats that the form means;
ours are read at once and one by one. Plans are tried with `teal` at 30 %. With --times the time of
a token (the best of all rounds) is put beside that of Llama in that form, which shows operations
and not bytes; on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import written
from shared.child import PROCESSES, Child
from shared.common import models_so_far, parser, save, say, thread_count

from converters.calibrate import calibrate
from sparity_edge import Generator, SamplingParams
from sparity_edge.errors import SparityError
from sparity_edge.measure.machine import machine

IDS = [1, *np.random.RandomState(4).randint(5, 288, 39).tolist()]
TOKENS = 16
GREEDY = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
SHARE = 0.3  # of the weights that the plan is asked to skip
REMEDY = "forms.py --help says what its Python needs."


def main() -> None:
    """Fill the table, a family at a time."""
    options = _options()
    threads = thread_count(options.threads)
    oracle = Child([options.oracle, str(PROCESSES / "forms_oracle.py")], REMEDY)
    report = {"machine": machine(threads), "models": models_so_far(options.out)}
    for family, case in written.families().items():
        if options.only and family not in options.only:
            continue
        rows = {}
        for form in written.forms():
            if options.form and form.name not in options.form:
                continue
            with tempfile.TemporaryDirectory() as work:
                os.environ["SPARITY_EDGE_CACHE"] = f"{work}/cache"
                name = written.named(family, case)
                rounds = options.rounds if options.times else 0
                rows[form.name] = _row(Path(work), name, form, oracle, threads, rounds)
            say(f"{family:18} {form.name:14} {rows[form.name]}")
        kept = {**report["models"].get(family, {}), **rows}
        order = [form.name for form in written.forms() if form.name in kept]
        report["models"][family] = {form: kept[form] for form in order}
        save(options.out, report)
    oracle.close()


def _options() -> argparse.Namespace:
    result = parser(__doc__, "forms")
    result.add_argument("--oracle", required=True, metavar="PYTHON", help="has transformers")
    result.add_argument("--only", action="append", default=[], metavar="FAMILY")
    result.add_argument("--form", action="append", default=[], metavar="FORM")
    result.add_argument("--times", action="store_true", help="measure them, too")
    return result.parse_args()


def _row(
    work: Path, name: str, form: written.Form, oracle: Child, threads: int, rounds: int
) -> dict[str, Any]:
    """What stands in the table of one family in one form."""
    try:
        path, weights = form.write(work, name)
    except KeyError:
        return {"none": "llama.cpp has no such file"}
    floats = written.write_floats(work / "floats", name, weights)
    out = str(work / "logits.npy")
    found = oracle("compute", folder=str(floats), ids=IDS, tokens=TOKENS, out=out)
    expected, dtype = np.load(out), None if form.kept else "f32"
    options: dict[str, Any] = {"threads": threads, "cache_dtype": "f32", "full_head": True}
    try:
        with Generator.load(path, dtype=dtype, **options) as generator:
            errors = [_error(generator, expected, step) for step in (len(IDS), 1)]
            answer = list(generator.generate(IDS, GREEDY).token_ids)
            row: dict[str, Any] = {
                "logits": max(errors),
                "greedy": sum(a == b for a, b in zip(answer, found["greedy"], strict=True)),
                "tokens": TOKENS,
            }
            if rounds:
                row["microseconds"] = min(_microseconds(generator) for _ in range(rounds))
    except SparityError as error:
        return {"refused": str(error).replace(str(work), "")[:300]}
    return {**row, **_plan(work, str(path), dtype, options)}


def _error(generator: Generator, expected: Any, step: int) -> float:
    """The largest difference of a logit, as a part of the largest logit."""
    model = generator.loaded.model
    model.kv_cache.trim(0)
    parts = [
        np.array(part)
        for start in range(0, len(IDS), step)
        for part in model.read_all_logits(IDS[start : start + step])
    ]
    return float(np.abs(np.concatenate(parts) - expected).max() / np.abs(expected).max())


def _microseconds(generator: Generator) -> float:
    began = time.perf_counter()
    generator.generate(IDS[:8], GREEDY)
    return (time.perf_counter() - began) / TOKENS * 1e6


def _plan(work: Path, path: str, dtype: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """The active fraction with a plan that was calibrated here, or why there is none."""
    text = work / "text.txt"
    text.write_text(" ".join(written.tiny.TRAINING_TEXT) * 9, encoding="utf-8")
    try:
        stored = calibrate(path, methods=["teal"], texts=[text], tokens=1024, dtype=dtype)
        with Generator.load(stored[0].folder, **options) as generator:
            generator.set_plan("teal", sparsity=SHARE, force=True)
            stats = generator.generate(IDS, GREEDY).stats
    except SparityError as error:
        return {"no_plan": str(error).replace(str(work), "")[:300]}
    return {"plan": stats.active_weight_fraction}


if __name__ == "__main__":
    main()
