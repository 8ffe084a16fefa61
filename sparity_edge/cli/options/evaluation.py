"""The options of the commands that measure quality: which text, and which windows of it.

`--help` must not wait for NumPy, so this module imports nothing heavy.
"""

from __future__ import annotations

import argparse

from sparity_edge.terminal.json_output import add_json_option


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Put the options of `perplexity` and `kl` on a parser; those of loading come beside them."""
    parser.add_argument("--text", metavar="FILE", required=True, help="the text, in UTF-8")
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="tokens a window (default: 1024, or the context where it is smaller)",
    )
    parser.add_argument(
        "--windows", type=int, metavar="N", help="measure N windows only (default: all)"
    )
    parser.add_argument(
        "--stride", type=int, default=1, metavar="N", help="take every N-th window (default: 1)"
    )
    add_json_option(parser)


PERPLEXITY_EXAMPLES = """With --sparsity, the plan applies to every position but the first four of a
window.

examples:
  sparity-edge perplexity --text book.txt
  sparity-edge perplexity ./my-model --text book.txt --windows 16 --json
  sparity-edge perplexity ./my-model --text book.txt --sparsity 0.25 --stride 4
"""
KL_EXAMPLES = """Dense and sparse passes are interleaved window by window; vectors are sparsified at
every position but the first four of a window. KL(dense || sparse) is in nats a token.

examples:
  sparity-edge kl ./my-model --text book.txt --sparsity 0.25
  sparity-edge kl ./my-model --text book.txt --plan chess --level 0.5 --stride 4 --json
"""
