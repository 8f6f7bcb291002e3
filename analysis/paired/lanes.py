"""How draws lie in memory; free of numba, so that the import is instant."""

from __future__ import annotations

# Draws are made in whole multiples of as many as fill one row of 64 bytes, in 16 bits each.
LANES, ROW_BYTES = 32, 64
# Where the weights of a lane may add up to this much, they take 32 bits each.
WIDE_FROM = 1 << 16
# Indices drawn at a time, at four bytes each, beyond what one row takes.
BLOCK = 1 << 19
