"""Tables of the server: beside llama-server, over the Generator, load, kept prompts, schemas.

Made from the results of server/{peers,overhead,load,prefix,schemas}.py; measures nothing.
"""

from __future__ import annotations

from typing import Any

from pages.captions import machines
from pages.tables import Results, Section
from shared.names import OURS, PEER

from sparity_edge.measure.rounds import table, with_spread

HEAD = ["model", "clients", "rounds x requests", "ours, tok/s", "llama-server, tok/s",
        "ratio (quartiles)", "p95 between tokens, ms", "llama-server, ms", "ratio (quartiles)",
        "TTFT, ours / llama-server"]  # fmt: skip
VERDICTS = ("valid", "cut")
AGAIN = ("again", "other end", "again after a restart", "other end after a restart")


def peers_table(results: Results) -> str:
    """Throughput, and how evenly tokens come, by model and number of clients."""
    lines = []
    for model, report in results["serving"]["models"].items():
        for clients, row in report["clients"].items():
            sides, ratios = row["sides"], row["ratios"]
            speeds = [f"{sides[side]['tokens_s']['median']:.1f}" for side in (OURS, PEER)]
            gaps = [f"{1e3 * sides[side]['gap_p95']['median']:.1f}" for side in (OURS, PEER)]
            lines.append([
                model, clients, f"{report['rounds']} x {report['requests']}", *speeds,
                with_spread(ratios["tokens_s"]), *gaps,
                with_spread(ratios["gap_p95"]), f"{ratios['ttft']['median']:.2f}",
            ])  # fmt: skip
    any_report = next(iter(results["serving"]["models"].values()))
    caption = (
        f"Prompts of {any_report['prompt_tokens']} tokens, {any_report['tokens']} tokens streamed, "
        "so many requests of each client in a round; llama-server with "
        f"{any_report['slots']} slots ({any_report['peer']}). {machines(results, ('serving',))}."
    )
    return f"{table(HEAD, lines)}\n\n{caption}"


def overhead_table(results: Results) -> str:
    """What the server adds to the Generator."""
    models: dict[str, Any] = results["server_overhead"]["models"]
    lines = [
        [
            model, f"{1e3 * row['ttft_more']['median']:.1f}", with_spread(row["decode_ratio"]),
            with_spread(row["together_ratio"]),
        ]
        for model, row in models.items()
    ]  # fmt: skip
    head = ["model", "TTFT, ms more", "decoding, server / Generator",
            "8 clients / generate_batch of 8"]  # fmt: skip
    return f"{table(head, lines)}\n\n{machines(results, ('server_overhead',))}."


def load_table(results: Results) -> str:
    """Answers by status, faults, and memory, under load."""
    lines = []
    for model, row in results["load"]["models"].items():
        statuses = ", ".join(f"{each}: {row['statuses'][each]}" for each in sorted(row["statuses"]))
        memory = [f"{row[key] / 1e6:.0f}" for key in ("rss_settled", "rss_end")]
        lines.append([
            model, f"{row['minutes']:g}", row["clients"], statuses, sum(row["faults"].values()),
            f"{row['requests'] - len(row['unlike_alone'])} of {row['requests']}",
            *memory, f"{row['rss_growth']:+.1%}",
        ])  # fmt: skip
    head = ["model", "minutes", "clients", "answers by status", "faults", "requests as alone",
            "MB, settled", "MB, at the end", "growth"]  # fmt: skip
    return f"{table(head, lines)}\n\n{machines(results, ('load',))}."


def prefix_table(results: Results) -> str:
    """Times to the first token where a prompt, or its beginning, has been read before."""
    models: dict[str, Any] = results["prefix"]["models"]
    lines = [
        [model, row["prompt_tokens"], f"{row['median_seconds']['first']:.2f}",
         *(f"{row['of_the_first'][how]:.3f}" for how in AGAIN)]
        for model, row in models.items()
    ]  # fmt: skip
    head = ["model", "tokens", "first, s", *(f"{how}, of it" for how in AGAIN)]
    return f"{table(head, lines)}\n\n{machines(results, ('prefix',))}."


def schemas_table(results: Results) -> str:
    """Answers under schemas by verdict, and what following one costs a token."""
    lines = []
    for model, row in results["schemas"]["models"].items():
        counts = row["answers"].values()
        verdicts = [sum(each.get(name, 0) for each in counts) for name in VERDICTS]
        others = sum(sum(each.values()) for each in counts) - sum(verdicts)
        lines.append([
            model, len(counts), *verdicts, others, with_spread(row["held_to_free"]),
            f"{row['work_to_free']['median']:.1%}", f"{row['tokens_per_pass']['median']:.2f}",
        ])  # fmt: skip
    head = ["model", "schemas", *VERDICTS, "invalid", "time of a token, of a free one",
            "llguidance's part", "tokens a pass"]  # fmt: skip
    return f"{table(head, lines)}\n\n{machines(results, ('schemas',))}."


TABLES = {
    "server-peers": Section(("serving",), peers_table),
    "server-overhead": Section(("server_overhead",), overhead_table),
    "server-load": Section(("load",), load_table),
    "server-prefix": Section(("prefix",), prefix_table),
    "server-schemas": Section(("schemas",), schemas_table),
}
