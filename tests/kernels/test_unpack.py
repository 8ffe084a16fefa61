"""The two readings of packed rows agree: each is the oracle of the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from packing import layouts, random_weights

from converters.numbers.layout_bytes import pack_matrix, unpack_matrix
from sparity_edge.kernels.reference.unpack import unpack
from sparity_edge.packed.layout import Layout, PackedMatrix


@settings(deadline=None, max_examples=100)
@given(layouts())
def test_both_readings_give_the_same_values(layout: Layout) -> None:
    packed = pack_matrix(random_weights(layout), layout)
    read = unpack_matrix(packed, layout)
    expected = read if isinstance(read, np.ndarray) else read.dequantize()
    np.testing.assert_array_equal(unpack(PackedMatrix(layout, packed)), expected)
