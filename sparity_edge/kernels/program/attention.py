"""Records of attention: the KV cache is appended to, then one token or many look at it."""

from __future__ import annotations

from typing import Any

from sparity_edge.arrays import Floats, Integers, Numbers, round_up
from sparity_edge.kernels.decode import attention as decode
from sparity_edge.kernels.decode import elementwise
from sparity_edge.kernels.kv_format import GROUP, head_dim_of, number_bytes, room_of
from sparity_edge.kernels.operations import HeadNorm
from sparity_edge.kernels.prefill import attention as prefill
from sparity_edge.kernels.program.elementwise import norm_words
from sparity_edge.kernels.program.fusions import take_rotation
from sparity_edge.kernels.program.recorder import Recorder


def append(
    recorder: Recorder,
    keys: Floats,
    values: Floats,
    table: Floats,
    position: Integers,
    cached_keys: Numbers,
    cached_values: Numbers,
    norm: HeadNorm | None = None,
) -> None:
    """Write rotated keys and values into the rows of the cache (heads, capacity)."""
    heads, head_dim = len(cached_keys), head_dim_of(cached_keys)
    recorder.need_scratch(4 * round_up(head_dim, GROUP))
    head_stride, token_stride = cached_keys.strides[:2]
    recorder.record(
        elementwise.append, len(keys), x=keys, x_stride=keys.strides[0], table=table,
        position=position, heads=heads, head_dim=head_dim, out=cached_keys,
        token_stride=token_stride, head_stride=head_stride, values=values,
        values_stride=values.strides[0], values_out=cached_values, number=number_bytes(cached_keys),
        **norm_words(norm),
    )  # fmt: skip


def attention(
    recorder: Recorder,
    q: Floats,
    cached_keys: Numbers,
    cached_values: Numbers,
    position: Integers,
    window: int | None,
    out: Floats,
) -> None:
    """Softmax(q K^T / sqrt(head_dim)) V over the positions each row of q may see."""
    heads, head_dim = q.shape[1] // head_dim_of(cached_keys), head_dim_of(cached_keys)
    common = {
        "q": q, "q_stride": q.strides[0], "keys": cached_keys, "values": cached_values,
        "head_stride": cached_keys.strides[0], "position": position, "window": window or 0,
        "share": heads // len(cached_keys), "head_dim": head_dim, "out": out,
        "out_stride": out.strides[0], "scale": head_dim**-0.5, "number": number_bytes(cached_keys),
    }  # fmt: skip
    if len(q) > 1:
        _of_many(recorder, common, len(cached_keys))
        return
    capacity = room_of(cached_keys.shape[1])
    blocks = -(-min(capacity, window or capacity) // decode.BLOCK)
    part_bytes = 4 * round_up(head_dim, 16) + 64
    # All layers share partial results, queries side by side do not.
    parts = recorder.pool(("attention", recorder.side_by_side), heads * blocks * part_bytes)
    words = {**common, "heads": heads, "blocks": blocks, "parts": parts, "part_bytes": part_bytes}
    taken = {**take_rotation(recorder.records, recorder.word(q), recorder.word(cached_keys))}
    recorder.need_scratch(decode.scratch_bytes(common["share"], head_dim))
    recorder.record(decode.attention_decode, len(cached_keys) * blocks, **(words | taken))
    recorder.afterwards(
        lambda: recorder.record(decode.attention_combine, heads, **words, writes=out)
    )


def _of_many(recorder: Recorder, common: dict[str, Any], kv_heads: int) -> None:
    tokens, share, out = len(common["q"]), common["share"], common["out"]
    wide, step = round_up(common["head_dim"], 32), prefill.step_of(share)
    recorder.need_scratch(prefill.scratch_bytes(share, tokens, wide))
    recorder.record(
        prefill.attention_prefill, kv_heads * -(-tokens // step), **common, kv_heads=kv_heads,
        count=tokens, step=step, wide=wide, writes=out,
    )  # fmt: skip
