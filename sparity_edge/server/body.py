"""What bodies of requests have in common, in all protocols."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """Refuses fields that it does not know, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class Dialled(Body):
    """A place on the sparsity dial of a request's own."""

    plan: str | None = None  # of sparsity, with one of the next two
    sparsity: float | None = None
    level: float | None = None
    force: bool = False  # follow it whatever it is known to cost


class OurSampling(Dialled):
    """How tokens are chosen, as far as this server goes beyond other protocols than OpenAI's."""

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    ignore_eos: bool = False
