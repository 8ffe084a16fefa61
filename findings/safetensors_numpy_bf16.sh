#!/usr/bin/env bash
# safetensors 0.8.0, NumPy side: whether BF16 tensors can be read depends on what else was imported.
#
# NumPy has no bfloat16. safetensors asks NumPy for a type of that name; it exists only once ml_dtypes
# has been imported somewhere in the process, and ml_dtypes being installed is not enough. A script
# that reads most checkpoints of today works or fails by the order of its imports.
#
# Seen: TypeError: data type 'bfloat16' not understood; after `import ml_dtypes`: [1 2] of bfloat16.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.2.6 ml_dtypes==0.5.4
"$place/venv/bin/python" - "$place/file.safetensors" <<'PYTHON'
import json
import struct
import sys

from safetensors.numpy import load_file

header = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
header += b" " * (-len(header) % 8)
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<Q", len(header)) + header + b"\x80\x3f\x00\x40")  # 1 and 2
try:
    load_file(sys.argv[1])
except TypeError as error:
    print("TypeError:", error)
else:
    raise SystemExit("no longer so: it was read without ml_dtypes")
import ml_dtypes

x = load_file(sys.argv[1])["x"]
print(x, x.dtype)
assert x.dtype == ml_dtypes.bfloat16 and x.astype(float).tolist() == [1.0, 2.0]
PYTHON
