"""The cache of keys and values: room, prefixes, and what its rows hold."""

from __future__ import annotations

import numpy as np
import pytest

from sparity_edge.arrays import ALIGNMENT, MAPPED_BYTES, aligned_zeros
from sparity_edge.choices import KV_DTYPES
from sparity_edge.errors import ContextError
from sparity_edge.kernels.kv_format import floats, head_dim_of, number_bytes, row_bytes, write
from sparity_edge.model.families import read_config
from sparity_edge.model.kv_cache import FIRST_CAPACITY, KVCache
from sparity_edge.model.rotary import frequencies, rotary_table

CONFIG = read_config(
    {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": 80,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    }
)


@pytest.mark.parametrize("dtype", KV_DTYPES)
def test_growing_keeps_what_was_there(dtype: str) -> None:
    cache = KVCache(CONFIG, 700, dtype)
    before = {}
    for layer in range(3):
        for which, rows in enumerate(cache.layer(layer)):
            random = np.random.default_rng(10 * layer + which)
            write(rows, random.standard_normal((2, FIRST_CAPACITY, 40)).astype(np.float32))
            before[layer, which] = floats(rows)
    cache.ids.extend(range(FIRST_CAPACITY))
    cache.reserve(FIRST_CAPACITY)
    assert cache.capacity == FIRST_CAPACITY
    cache.reserve(FIRST_CAPACITY + 1)
    assert cache.capacity == 700  # a quarter more, in steps of 256, but never beyond the context
    for (layer, which), values in before.items():
        found = floats(cache.layer(layer)[which][:, :FIRST_CAPACITY])
        np.testing.assert_array_equal(found, values)
    with pytest.raises(ContextError, match="--max-context"):
        cache.reserve(701)
    with pytest.raises(ContextError, match="the model reads 4096 tokens at most") as error:
        cache.reserve(4097)  # a larger context would be refused
    assert "--max-context" not in str(error.value)


def test_room_grows_by_a_quarter() -> None:
    cache = KVCache(CONFIG, 4096, "bf16")
    capacities = [cache.capacity]
    for length in range(1, 4097):
        cache.reserve(length)
        if cache.capacity != capacities[-1]:
            capacities.append(cache.capacity)
    assert capacities == [512, 768, 1024, 1280, 1792, 2304, 3072, 3840, 4096]


@pytest.mark.parametrize(
    ("dtype", "number", "row"), [("f32", 4, 160), ("bf16", 2, 80), ("int8", 1, 48)]
)
def test_bytes_of_rows(dtype: str, number: int, row: int) -> None:
    cache = KVCache(CONFIG, 512, dtype)
    keys, _ = cache.layer(0)
    assert (head_dim_of(keys), number_bytes(keys), row_bytes(keys)) == (40, number, row)
    assert cache.bytes_per_token == 2 * 3 * 2 * row
    assert cache.nbytes == 512 * cache.bytes_per_token


def test_int8_groups_of_what_is_no_number_are_none() -> None:
    keys, _ = KVCache(CONFIG, 4, "int8").layer(0)
    values = np.ones((2, 4, 40), dtype=np.float32)
    values[0, 1, 3], values[1, 2, 39], values[1, 3] = np.nan, -np.inf, 0
    write(keys, values)
    expected = np.array(values)
    expected[0, 1, :32] = expected[1, 2, 32:] = np.nan
    np.testing.assert_allclose(floats(keys), expected, rtol=1e-6)


def test_the_rotary_table_holds_cosines_and_sines() -> None:
    rope = CONFIG.rope(0)
    assert rope is not None
    angles = np.arange(50, dtype=np.float32)[:, None] * frequencies(rope)
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_array_equal(rotary_table(rope, 40, 50), expected)


@pytest.mark.parametrize(
    "nbytes", [0, 1, 100, MAPPED_BYTES - 1, MAPPED_BYTES, 3 * MAPPED_BYTES + 5]
)
def test_zeroed_memory(nbytes: int) -> None:
    memory = aligned_zeros(nbytes)
    assert memory.shape == (nbytes,)
    assert memory.ctypes.data % ALIGNMENT == 0 or nbytes == 0
    assert not memory.any()
    memory[:] = 255
    assert aligned_zeros(nbytes).sum() == 0
