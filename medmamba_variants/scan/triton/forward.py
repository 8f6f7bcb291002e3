"""The forward kernel of the scan in Triton.

A program carries the states of a block of channels, a tile (channels, d_state) in registers, along one direction of one
batch item; with several directions to a program it takes them in turn. It walks the path in groups of steps: first all
loads of a group, which then wait for memory together, then its steps, then what leaves it.
"""

# Kernels are Triton's language: their variables may change type.
# mypy: disable-error-code="assignment"

import triton
import triton.language as tl

from medmamba_variants.scan.triton.functions import (
    LOG2_E,
    part_below,
    position_at,
    softplus,
    starts_anew,
    visited_part,
    without_padding,
)


@triton.jit
def forward_kernel(
    x,
    delta,
    A,
    B,
    C,
    D,
    delta_bias,
    table,
    resets,
    y,
    checkpoints,
    length,
    channels,
    states: tl.constexpr,  # d_state itself: rows are read in wide pieces where it is known to be even enough
    directions,
    steps,
    blocks,  # of channels
    directions_each,  # that a program walks
    chunk,  # steps between two checkpoints, a multiple of GROUP
    kept,  # checkpoints of each direction
    BLOCK: tl.constexpr,  # channels of a program
    STATES: tl.constexpr,  # d_state rounded up to a power of two
    GROUP: tl.constexpr,  # steps whose loads wait together
    SUM: tl.constexpr,  # how y is summed over directions: "none", "in turn" by one program, or "atomic"
    KEEP: tl.constexpr,  # whether to write checkpoints
    PAUSES: tl.constexpr,  # whether a direction may pause, or a group may end beyond the path
    RESETS: tl.constexpr,  # whether the path has marks
    ALL_CHANNELS: tl.constexpr,  # whether the blocks hold no more than the channels
    ALL_STATES: tl.constexpr,
    WIDE: tl.constexpr,  # whether offsets within a batch item need 64 bits
):
    """y, and the states before each chunk of steps but the first: (batch, K, kept, channels, d_state) float32."""
    program = tl.program_id(0)
    # Neighbours differ in direction, then in channels: they share x, y, B and C in the caches.
    splits = directions // directions_each
    first_direction = program % splits * directions_each
    block = program // splits % blocks
    item = (program // (splits * blocks)).to(tl.int64)

    c = block * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, STATES)
    in_channels = part_below(c, channels, ALL_CHANNELS)
    in_states = part_below(n, states, ALL_STATES)
    in_tile = in_channels[:, None] & in_states[None, :]
    x += item * length * channels
    y += item * length * channels

    for k in range(first_direction, first_direction + directions_each):
        delta_k = delta + (item * length * directions + k) * channels
        B_k = B + (item * length * directions + k) * states
        C_k = C + (item * length * directions + k) * states
        tile = (k * channels + c)[:, None] * states + n[None, :]
        # Beyond the last state −1: a rate of zero times an infinite step would be NaN.
        rates = tl.load(A + tile, mask=in_tile, other=-1.0).to(tl.float32) * LOG2_E
        skip = tl.load(D + k * channels + c, mask=in_channels, other=0.0).to(tl.float32)
        bias = tl.load(delta_bias + k * channels + c, mask=in_channels, other=0.0).to(tl.float32)
        kept_tile = c[:, None] * states + n[None, :]
        first_checkpoint = (item * directions + k) * kept
        h = tl.zeros([BLOCK, STATES], tl.float32)

        for start in range(0, steps, GROUP):
            if KEEP:  # noqa: SIM102 (this one is decided when the kernel is compiled)
                if (start > 0) & (start % chunk == 0):
                    checkpoint = checkpoints + (first_checkpoint + start // chunk - 1) * channels * states
                    tl.store(checkpoint + kept_tile, h, mask=in_tile)
            positions, parts, xs, rs, Bs, Cs, before = (), (), (), (), (), (), ()
            for u in tl.static_range(GROUP):
                p = position_at(table + k * steps, start + u, steps, PAUSES, WIDE)
                part = visited_part(in_channels, p, PAUSES)
                of_state = visited_part(in_states, p, PAUSES)
                positions += (p,)
                parts += (part,)
                xs += (tl.load(x + p * channels + c, mask=part, other=0.0).to(tl.float32),)
                rs += (tl.load(delta_k + p * directions * channels + c, mask=part, other=0.0).to(tl.float32) + bias,)
                Bs += (tl.load(B_k + p * directions * states + n, mask=of_state, other=0.0).to(tl.float32),)
                Cs += (tl.load(C_k + p * directions * states + n, mask=of_state, other=0.0).to(tl.float32),)
                if SUM == "in turn":
                    before += (tl.load(y + p * channels + c, mask=part, other=0.0),)
            outputs = ()
            for u in tl.static_range(GROUP):
                step_size = softplus(rs[u])
                if PAUSES:
                    step_size = tl.where(positions[u] >= 0, step_size, 0.0)
                if RESETS:
                    h = tl.where(starts_anew(resets + k * steps, start + u, steps), 0.0, h)
                decay = tl.exp2(step_size[:, None] * rates)
                if PAUSES:
                    # Not left to exp(0): a rate of minus infinity would make it NaN.
                    decay = tl.where(positions[u] >= 0, decay, 1.0)
                drive = (step_size * xs[u])[:, None] * Bs[u][None, :]
                h = decay * h + without_padding(drive, in_states, ALL_STATES)
                outputs += (tl.sum(h * Cs[u][None, :], 1) + skip * xs[u],)
            for u in tl.static_range(GROUP):
                target = y + positions[u] * channels + c
                if SUM == "atomic":
                    tl.atomic_add(target, outputs[u], mask=parts[u], sem="relaxed")
                elif SUM == "in turn":
                    tl.store(target, before[u] + outputs[u], mask=parts[u])
                else:
                    tl.store(target, outputs[u].to(y.dtype.element_ty), mask=parts[u])
        if SUM == "in turn":
            # The next direction reads what other threads of this program have written.
            tl.debug_barrier()
