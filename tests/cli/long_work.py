"""What a command told beside work of over two seconds, which it names on a line of its own."""

from __future__ import annotations

NOTES = ("Packing ", "Making a screen ")


def beside_long_work(stderr: str) -> str:
    """The stderr of a command without such lines: slow machines and first runs have them."""
    lines = stderr.splitlines(keepends=True)
    return "".join(
        line for line in lines if not line.endswith(" ...\n") and not line.startswith(NOTES)
    )
