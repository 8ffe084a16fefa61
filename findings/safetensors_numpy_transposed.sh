#!/usr/bin/env bash
# safetensors 0.8.0, NumPy side: an array that is not contiguous is saved without an error, and other
# numbers are read back.
#
# The documentation asks for contiguous arrays, and for torch tensors the same mistake is a ValueError.
# safetensors.numpy takes the address of the first number and as many bytes as the array has, so the
# transpose of a matrix, as which a PyTorch weight often comes, is stored in the order of the matrix
# before it was transposed, under the transposed shape. Whoever converts weights should pass
# numpy.ascontiguousarray.
#
# Seen: [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]] was saved, [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]] was read.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.2.6
"$place/venv/bin/python" - "$place/file.safetensors" <<'PYTHON'
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
save_file({"transposed": matrix.T, "copied": np.ascontiguousarray(matrix.T)}, sys.argv[1])
read = load_file(sys.argv[1])
print("saved", matrix.T.tolist(), "read", read["transposed"].tolist())
assert np.array_equal(read["copied"], matrix.T)
assert read["transposed"].shape == matrix.T.shape
assert np.array_equal(read["transposed"].ravel(), matrix.ravel()), "no longer so"
PYTHON
