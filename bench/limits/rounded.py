"""Prompts whose activations are rounded to bytes: KL to the same model with 16-bit activations.

On CPUs with AVX2 and no more, long prompts multiply weights of four to six bits by bytes. What that
costs is measured on held-out text, position by position, every window from a cold start; other
CPUs do not round, so the script asks for --as-cpu on them.

    python bench/limits/rounded.py --as-cpu znver3 --packs ./pack --text wiki.valid.raw
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages.limits import rounded_table
from shared.common import of_packs, parser, say

WINDOW = 1024
FIRST = 64  # positions of a window whose KL is reported besides


@contextmanager
def sixteen_bits() -> Iterator[None]:
    """Prompts are recorded as on CPUs that do not round them to bytes."""
    from sparity_edge.kernels.kept import families

    before = families.rounds_to_bytes
    families.rounds_to_bytes = lambda: False
    try:
        yield
    finally:
        families.rounds_to_bytes = before


def measure(pack: Path, options: Any, threads: int) -> dict[str, Any]:
    """KL of one packed folder, and how often both think another token the likeliest."""
    import numpy as np

    from converters.calibration.observe import dense_model
    from converters.calibration.windows import token_windows
    from sparity_edge.logits import kl_divergence, log_normaliser
    from sparity_edge.model.opening import open_folder
    from sparity_edge.packed.folder import read_weights
    from sparity_edge.progress import silent
    from sparity_edge.text.tokenizer import Tokenizer

    folder = open_folder(pack)
    packed, tokenizer = read_weights(folder), Tokenizer.from_folder(pack)
    text = [options.text.read_text(encoding="utf-8")]
    every = token_windows(tokenizer, folder.config.eos_token_ids, text, 1 << 30, WINDOW)
    windows = every[:: len(every) // options.windows][: options.windows]
    kls, same = [], []
    with ExitStack() as models:
        with sixteen_bits():
            exact_model = models.enter_context(dense_model(packed, WINDOW, threads, silent))
        model = models.enter_context(dense_model(packed, WINDOW, threads, silent))
        for ids in windows:
            with sixteen_bits():
                exact_model.kv_cache.trim(0)
                expected = np.concatenate(
                    [part.copy() for part in exact_model.read_all_logits(ids.tolist())]
                )
            model.kv_cache.trim(0)
            start = 0
            for other in model.read_all_logits(ids.tolist()):
                part = expected[start : start + len(other)]
                start += len(other)
                kls.append(kl_divergence(part, log_normaliser(part), other, log_normaliser(other)))
                same.append(part.argmax(axis=1) == other.argmax(axis=1))
            say(f"{pack.name}: KL {np.concatenate(kls).mean():.5f}")
    of_windows = np.concatenate(kls).reshape(len(windows), -1)
    return {
        "kl": float(of_windows.mean()),
        "kl_first": float(of_windows[:, :FIRST].mean()),
        "same_top": float(np.concatenate(same).mean()),
        "windows": len(windows),
    }


def main() -> int:
    result = parser(__doc__, "rounded")
    result.add_argument("--packs", type=Path, nargs="+", required=True, help="packed folders")
    result.add_argument("--text", type=Path, required=True, help="of the KL")
    result.add_argument("--windows", type=int, default=3, help="default: %(default)s")
    options = result.parse_args()
    from sparity_edge.kernels.simd.cpu import rounds_to_bytes

    if not rounds_to_bytes():
        say("Prompts are not rounded on this CPU; try --as-cpu znver3.")
        return 1
    report = of_packs(options.packs, options, measure)
    print(rounded_table({"rounded": report}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
