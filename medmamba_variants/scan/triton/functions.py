"""What the Triton kernels share: the step size and its derivative, and where a step of a path goes."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus(r):
    """log(1 + exp(r)) = max(r, 0) + 2 · artanh(e / (2 + e)) with e = exp(−|r|): no digits lost where it is small."""
    e = tl.exp2(tl.abs(r) * -LOG2_E)
    s = e / (e + 2.0)
    z = s * s
    # artanh(s) / s for s in [0, 1/3], to 2e-8: 1 + z · a cubic interpolated at Chebyshev points.
    series = 0.13425749 * z + 0.141183099
    series = series * z + 0.200037803
    series = series * z + 0.333333202
    series = series * z + 1.0
    return tl.maximum(r, 0.0) + 2.0 * s * series


@triton.jit
def softplus_derivative(r):
    """1 / (1 + exp(−r)), from the same exp(−|r|), which cannot overflow."""
    e = tl.exp2(tl.abs(r) * -LOG2_E)
    return tl.where(r >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def position_at(order, step, steps, PAUSES: tl.constexpr, WIDE: tl.constexpr):
    """The position visited at a step, −1 for a pause and beyond the path's end."""
    if PAUSES:
        position = tl.load(order + step, mask=step < steps, other=-1)
    else:
        position = tl.load(order + step)
    return position.to(tl.int64) if WIDE else position


@triton.jit
def visited_part(part, position, PAUSES: tl.constexpr):
    """Which of a step's elements exist: those of `part` where the direction visits a position, else none."""
    if PAUSES:
        # Not `&`: Triton 3.9's interpreter makes integers of that, and refuses them as a mask.
        part = tl.where(position >= 0, part, False)
    return part


@triton.jit
def starts_anew(marks, step, steps):
    """Whether the state starts anew before a step."""
    return tl.load(marks + step, mask=step < steps, other=0) != 0


@triton.jit
def part_below(index, limit, ALL: tl.constexpr):
    """Which indices are below a limit; with ALL they are known to be, and masks with them disappear."""
    if ALL:
        part = tl.full(index.shape, True, tl.int1)
    else:
        part = index < limit
    return part


@triton.jit
def without_padding(values, in_states, ALL_STATES: tl.constexpr):
    """Values (channels, states) with zeros beyond the last state: infinity times a zero loaded there would be NaN."""
    if not ALL_STATES:
        values = tl.where(in_states[None, :], values, 0.0)
    return values


@triton.jit
def far(index, stride):
    """index · stride in 64 bits: Triton passes a stride in 32 where it fits, but the product may not."""
    return index.to(tl.int64) * stride
