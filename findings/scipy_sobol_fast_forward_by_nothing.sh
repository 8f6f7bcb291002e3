#!/usr/bin/env bash
# SciPy 1.17.1: a fresh Sobol sequence cannot be advanced by no points: `fast_forward(0)` raises OverflowError.
#
# By one point or more it goes, and so does Halton's sequence by none. Who continues a sequence from a stored number of
# points, as a resumed search does, meets this at the very first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "scipy==1.17.1" numpy
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import scipy
from scipy.stats import qmc

print("SciPy", scipy.__version__)
whole = qmc.Sobol(3, rng=1).random(4)
assert np.array_equal(qmc.Sobol(3, rng=1).fast_forward(2).random(2), whole[2:]), "by two points it was right"
assert np.array_equal(qmc.Halton(3, rng=1).fast_forward(0).random(4), qmc.Halton(3, rng=1).random(4))
try:
    qmc.Sobol(3, rng=1).fast_forward(0)
except OverflowError as error:
    print("as found: OverflowError:", error)
else:
    raise SystemExit("the behaviour has changed: a sequence can be advanced by nothing")
PYTHON
