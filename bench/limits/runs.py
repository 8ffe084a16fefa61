"""What the scripts of masked references share: options, windows of text, and the results file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from limits.masked import Rule, divergences
from pages.limits import masked_table
from shared.common import models_so_far, parser, save, say, thread_count

from sparity_edge.measure.machine import machine

TEXT = Path("wikitext2/wiki.valid.raw")
CALIBRATION = Path("calib_c4/c4_pf_1480.jsonl")


def main(
    doc: str | None,
    name: str,
    rules: Mapping[str, Rule],
    reads: Callable[[Any, str], float] = lambda _config, _rule: 0.5,
) -> int:
    """Measure every rule on one packed folder, keep the figures and print the table.

    Args:
        doc: of the script.
        name: of the results file.
        rules: by name.
        reads: given the configuration and a rule's name, the share of the weights that it reads.
    """
    from converters.calibration.windows import read_documents, token_windows
    from sparity_edge.model.opening import open_folder
    from sparity_edge.packed.folder import read_weights
    from sparity_edge.text.tokenizer import Tokenizer

    options = parser(doc, name)
    options.add_argument(
        "--pack", type=Path, required=True, help="a packed folder, its numbers f32"
    )
    options.add_argument("--data", type=Path, required=True, help="folder of texts")
    options.add_argument("--windows", type=int, default=2, help="default: %(default)s")
    options.add_argument("--window", type=int, default=1024, help="tokens; default: %(default)s")
    options.add_argument("--learn", type=int, default=2, help="calibration windows; default: 2")
    options.add_argument("--rules", nargs="+", choices=list(rules), default=list(rules))
    chosen = options.parse_args()
    folder = open_folder(chosen.pack)
    tokenizer = Tokenizer.from_folder(chosen.pack)

    def windows(documents: Any, count: int) -> Any:
        ids = folder.config.eos_token_ids
        every = token_windows(tokenizer, ids, documents, 1 << 19, chosen.window)
        return every[:: max(1, len(every) // count)][:count]

    text = windows([(chosen.data / TEXT).read_text(encoding="utf-8")], chosen.windows)
    learnt = windows(read_documents([chosen.data / CALIBRATION]), chosen.learn)
    wanted = {key: rules[key] for key in chosen.rules}
    found = divergences(
        read_weights(folder), text, learnt, wanted, lambda layer: say(f"layer {layer}")
    )
    rows = [
        {"rule": key, "reads": reads(folder.config, key), "kl": kl} for key, kl in found.items()
    ]
    report = {"machine": machine(thread_count(chosen.threads)), "models": models_so_far(chosen.out)}
    source = str(folder.manifest.get("source", chosen.pack.name))
    report["models"][Path(source).stem] = {
        "rows": rows,
        "windows": len(text),
        "learn": len(learnt),
        "window": chosen.window,
    }
    save(chosen.out, report)
    print(masked_table({name: report}, name))
    return 0
