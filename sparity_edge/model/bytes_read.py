"""BytesRead: what a model's passes read of its weights, and which channels were active.

Sums over what a `Model` holds; it reads nothing itself and decides nothing.
"""

from __future__ import annotations

from functools import cached_property

from sparity_edge.model.applied_plan import AppliedPlan, Reader, dense_layer_bytes, layer_bytes
from sparity_edge.model.decoder import Decoder
from sparity_edge.model.screened_head import Ids, ScreenedHead
from sparity_edge.packed.folder import PackedModel


class BytesRead:
    """The bytes that a model has and reads; `Model` sets what stands here without a value."""

    packed: PackedModel
    decoder: Decoder
    exact_ids: Ids | None  # logits that `read` computed last; None: all
    _plan: AppliedPlan | None
    _screened: ScreenedHead | None
    _reader: Reader | None  # of the latest pass

    @cached_property
    def layer_bytes(self) -> int:
        """Bytes of the weights of all decoder layers."""
        return layer_bytes(self.packed)

    @cached_property
    def dense_layer_bytes(self) -> int:
        """Bytes that they have in a dense pack of the same numbers."""
        return dense_layer_bytes(self.packed)

    @property
    def plan_bytes(self) -> int:
        """Bytes of what the plan brings along to be read for every token."""
        return 0 if self._plan is None else self._plan.added_bytes

    @property
    def head_bytes(self) -> int:
        """Bytes of the LM head, or of its screen and rows, that the latest pass read."""
        head = self.decoder.lm_head.layout
        if self._screened is None or self.exact_ids is None:
            return int(head.nbytes)
        return int(self._screened.nbytes + len(self.exact_ids) * head.row_bytes)

    @property
    def screen_bytes(self) -> int:
        """Bytes of the screen before the LM head; 0 without one."""
        return 0 if self._screened is None else self._screened.nbytes

    @property
    def active_weight_fraction(self) -> float:
        """Of the latest pass: bytes of decoder weights read / bytes of them in a dense pack.

        A pack that can be skipped in part may be up to 2 % larger, and more in some formats.
        Of a prompt the mean over its tokens, each as if it were alone.
        """
        read = self.layer_bytes if self._reader is None else self._reader.bytes_read
        return read / self.dense_layer_bytes

    @property
    def densities(self) -> dict[str, float]:
        """Of the latest pass: active channels / channels at every site that the plan sparsifies."""
        return {} if self._reader is None else self._reader.densities
