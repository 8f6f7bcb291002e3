"""The layout that draws and rank programs share; free of numba, so that importing it is instant."""

from __future__ import annotations

# What one step of a program does: a negative joins those below; a positive is paired with those below, alone in its
# run of equal scores (twice at once) or, in a mixed run, once before and once after the run's negatives have joined.
NEGATIVE, POSITIVE_AFTER, POSITIVE_BEFORE, POSITIVE = 0, 1, 2, 3


# Draws are made and evaluated in blocks of as many as fill one vector register, in 16 bits each.
LANES = 32
