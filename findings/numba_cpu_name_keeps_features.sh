#!/usr/bin/env bash
# Numba 0.68.1: NUMBA_CPU_NAME alone does not keep a newer CPU's instructions out.
#
# The variable names the CPU that code is tuned for, but the features of the CPU at hand are switched
# on besides, unless NUMBA_CPU_FEATURES is set too (an empty value will do). Code compiled "for nocona",
# a CPU of 2004 without AVX, has AVX registers, and a cache that is made so is of no use to such a CPU.
# Only the name "generic" behaves otherwise.
#
# Seen: nocona True, nocona with empty features False, generic False (are there AVX registers?)
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numba==0.68.1
cat > "$place/avx.py" <<'PYTHON'
import numba
import numpy as np


@numba.njit("float32(float32[::1])", fastmath=True)
def squares(x):
    total = np.float32(0)
    for i in range(x.size):
        total += x[i] * x[i]
    return total


print("%ymm" in "".join(squares.inspect_asm().values()))
PYTHON
python="$place/venv/bin/python"
if [ "$("$python" "$place/avx.py")" != True ]; then
    echo "This CPU has no AVX, so nothing can be seen here."
    exit 0
fi
named=$(NUMBA_CPU_NAME=nocona "$python" "$place/avx.py")
both=$(NUMBA_CPU_NAME=nocona NUMBA_CPU_FEATURES= "$python" "$place/avx.py")
generic=$(NUMBA_CPU_NAME=generic "$python" "$place/avx.py")
echo "nocona $named, nocona with empty features $both, generic $generic (are there AVX registers?)"
[ "$named $both $generic" = "True False False" ] || { echo "no longer so"; exit 1; }
