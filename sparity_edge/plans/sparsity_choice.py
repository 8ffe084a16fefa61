"""SparsityChoice: what became of a wish to skip weights, as data and as one line.

A plan was followed or not, by how fast it decodes on this machine and how much it changes. Measures
nothing, and knows no command line: how one asks for more is the caller's words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SparsityChoice:
    """The position of the dial that was considered last, and what is known of it."""

    plan: str
    sparsity: float  # share of decoder weight bytes that it leaves unread
    kl: float | None  # nats a token to the dense model, on held-out text; None: not measured
    gain: float  # decoding speed over that of dense decoding, measured on this machine
    followed: bool  # else all weights are read

    @property
    def slower(self) -> bool:
        """Whether the plan makes decoding slower than it is without."""
        return self.gain < 1

    def line(self, way: str = "force=True") -> str:
        """What there is to say of it.

        Args:
            way: how a user asks for the plan all the same.
        """
        speed = f"{self.gain:.2f}x as fast"
        loss = "KL not measured" if self.kl is None else f"KL {self.kl:.2g}"
        share = f"{100 * self.sparsity:.0f} %"
        if not self.followed:
            return (
                f"skips nothing: plan {self.plan} at {share} would be {speed} as dense decoding "
                f"here, {loss}; {way} follows it all the same"
            )
        slower = " (slower than dense decoding)" if self.slower else ""
        return f"skips {share}, {speed}{slower}, {loss} (plan {self.plan})"

    def __str__(self) -> str:
        return self.line()
