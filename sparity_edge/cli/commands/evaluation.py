"""What the commands that measure quality do: `perplexity` and `kl`.

Both load the model with `sparse_prefill`, whatever the user said of prompts: a text that is only
read would else be measured dense.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from sparity_edge.cli.commands.loading import loaded, progress_bars, side_screen
from sparity_edge.errors import OptionError
from sparity_edge.terminal.json_output import print_json
from sparity_edge.text.text_file import read_text_file

# What --json of `perplexity` has; the standard error of a single window is null.
PERPLEXITY_KEYS = ("perplexity", "stderr", "tokens", "active_weight_fraction")


def perplexity(arguments: Namespace) -> None:
    """`sparity-edge perplexity`: the figure, its standard error, and what was read for it."""
    text = read_text_file(arguments.text)
    arguments.sparse_prefill = arguments.full_head = True
    with loaded(arguments, side_screen(), as_asked=True) as (generator, screen):
        from sparity_edge.quality.perplexity import perplexity as measure

        with progress_bars(arguments, screen) as bars:
            result = measure(generator, text, **_windows(arguments), progress=bars)
    if arguments.json:
        print_json({key: getattr(result, key) for key in PERPLEXITY_KEYS})
        return
    _show(
        {
            "perplexity": _with_error(result.perplexity, result.stderr),
            "tokens": str(result.tokens),
            "active weight fraction": f"{result.active_weight_fraction:.4f}",
        }
    )


def kl(arguments: Namespace) -> None:
    """`sparity-edge kl`: KL divergence of a model with a plan from the dense model."""
    text = read_text_file(arguments.text)
    if not arguments.sparsity and not arguments.level:
        raise OptionError("Nothing is sparse; say how far with --sparsity or --level.")
    arguments.sparse_prefill = arguments.full_head = True
    with loaded(arguments, side_screen(), as_asked=True) as (generator, screen):
        from sparity_edge.plans.setting import Setting
        from sparity_edge.quality.divergence import divergences

        setting = Setting(arguments.plan, arguments.sparsity, arguments.level)
        with progress_bars(arguments, screen) as bars:
            (result,) = divergences(
                generator, text, [setting], **_windows(arguments), progress=bars
            )
    if arguments.json:
        print_json(result.to_dict())
        return
    ratio = _with_error(result.perplexity_ratio, result.perplexity_ratio_stderr)
    _show(
        {
            "KL, mean": f"{_with_error(result.kl_mean, result.kl_stderr)} nats a token",
            "KL, 99th percentile": f"{result.kl_p99:.4f}",
            "top-1 agreement": f"{result.top1_agreement:.2%}",
            "perplexity, dense": _with_error(result.dense.perplexity, result.dense.stderr),
            "perplexity, sparse": _with_error(result.sparse.perplexity, result.sparse.stderr),
            "ratio": ratio,
            "tokens": str(result.sparse.tokens),
            "active weight fraction": f"{result.sparse.active_weight_fraction:.4f}",
        }
    )


def _windows(arguments: Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("window", "windows", "stride")}


def _with_error(value: float, error: float) -> str:
    return f"{value:.4f} ± {error:.4f}" if math.isfinite(error) else f"{value:.4f}"


def _show(facts: Mapping[str, str]) -> None:
    for name, value in facts.items():
        print(f"{name:<22} {value}")
