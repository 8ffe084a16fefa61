#!/usr/bin/env bash
# Numba 0.68.1: two cached functions answer with each other's closure, if two processes compiled them.
#
# Closures that one factory makes have one name; Numba tells their machine code apart by a number that
# starts anew in every process. first() calls the closure with factor 1, second() that with factor 10.
# Each is compiled and cached by a process of its own and is right there. A process that then loads
# both from the cache links the calls of both to the closure that came first, and is silently wrong;
# compiled in one process they are right.
#
# Seen: compiled together: different; cached by two processes, loaded together: equal, either order
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numba==0.68.1
cd "$place"
cat > pair.py <<'PYTHON'
import math

import numba


def scaling(factor):
    @numba.njit
    def scaled(x):  # long enough that its callers call it, as it is called three times
        total = 0.0
        for i in range(40):
            total += math.sin(x * i) * factor + math.exp(-x * i) * factor
            if total > 1e300:
                total = math.sqrt(total) * math.cos(x)
            total += math.tan(x + i) * math.atan(x * i) * math.log1p(abs(x))
        return total

    return scaled


one, ten = scaling(1.0), scaling(10.0)


@numba.njit(cache=True)
def first(x):
    return one(x) + one(2 * x) + one(3 * x)


@numba.njit(cache=True)
def second(x):
    return ten(x) + ten(2 * x) + ten(3 * x)
PYTHON
python="$place/venv/bin/python"
compared() { # CACHE CALL CALL: whether two calls in one process give the same
    NUMBA_CACHE_DIR="$place/$1" "$python" -c "
import pair
print('equal' if pair.$2(0.5) == pair.$3(0.5) else 'different')"
}
together=$(compared one first second)
NUMBA_CACHE_DIR="$place/two" "$python" -c "import pair; pair.first(0.5)"
NUMBA_CACHE_DIR="$place/two" "$python" -c "import pair; pair.second(0.5)"
forth=$(compared two first second)
back=$(compared two second first)
echo "compiled together: $together; cached by two processes, loaded together: $forth, $back"
[ "$together $forth $back" = "different equal equal" ] || { echo "no longer so"; exit 1; }
