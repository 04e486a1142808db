#!/usr/bin/env bash
# NumPy sums an axis before a short last one several times more slowly than its own einsum.
#
# Version    NumPy 2.3.4, Python 3.11.
# Input      int64 of shape (64, 512, 3), rows of a colour picture; its sum over the 512 pixels of each row.
# Expected   x.sum(1) takes no longer than np.einsum("rwc->rc", x), which gives the same numbers.
# Seen       about five times as long.
# Hurts      whoever sums pictures whose colours stand last, which is how every reader gives them.
# Instead    einsum, or move the colours to the front first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'numpy==2.3.4'
cat > "$folder/run.py" <<'PY'
import timeit

import numpy as np

x = np.arange(64 * 512 * 3).reshape(64, 512, 3)
assert np.array_equal(x.sum(1), np.einsum("rwc->rc", x))
one, other = (min(timeit.repeat(f, number=50, repeat=7)) for f in (lambda: x.sum(1), lambda: np.einsum("rwc->rc", x)))
print(f"sum {one * 20:.3f} ms, einsum {other * 20:.3f} ms, ratio {one / other:.1f}")
assert one > 2 * other
PY
"$folder/venv/bin/python" "$folder/run.py"
