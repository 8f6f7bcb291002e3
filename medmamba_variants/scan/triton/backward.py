"""The backward kernel of the scan in Triton.

Programs are those of the forward kernel. Each walks its path backwards, chunk by chunk. From a chunk's checkpoint it
first goes forward and notes the step sizes and every GROUP-th state in scratch memory that stays in the cache; then it
goes backward a group at a time, recomputing the group's states into registers. A decay is computed each time it is
needed: the registers to hold it would cost more than the exponential.

For one step, with g = dy[p] and the gradient dh of the state after it (the chain rule on `reference.scan`):
    dC = Σ_channels g · h          dh += g · C             dB = Σ_channels dh · Δx
    dΔx = Σ_states dh · B          dh = dh · exp(Δ·A)      q = dh · h before the step, the gradient of Δ·A
    dA += q · Δ                    dΔ = Σ_states q · A + dΔx · x
    dx = dΔx · Δ + g · D           ddelta = dΔ · softplus'(r)
"""

# Kernels are Triton's language: their variables may change type.
# mypy: disable-error-code="assignment"

import triton
import triton.language as tl

from medmamba_variants.scan.triton.functions import (
    LN_2,
    LOG2_E,
    far,
    part_below,
    position_at,
    softplus,
    softplus_derivative,
    starts_anew,
    visited_part,
    without_padding,
)


@triton.jit
def backward_kernel(
    dy,
    x,
    delta,
    A,
    B,
    C,
    D,
    delta_bias,
    table,
    resets,
    checkpoints,
    state_notes,  # scratch: (programs, chunk / GROUP, BLOCK, STATES)
    step_notes,  # scratch: (programs, chunk, BLOCK)
    dx,
    ddelta,
    dA,
    dB,
    dC,
    dD,
    ddelta_bias,
    length,
    channels,
    states: tl.constexpr,  # d_state itself: rows are read in wide pieces where it is known to be even enough
    directions,
    steps,
    blocks,  # of channels
    directions_each,  # that a program walks
    chunk,  # steps between two checkpoints, a multiple of GROUP
    kept,  # checkpoints of each direction
    block_stride,  # from one channel block's dB and dC to the next one's; 0 where they share memory
    BLOCK: tl.constexpr,  # channels of a program
    STATES: tl.constexpr,  # d_state rounded up to a power of two
    GROUP: tl.constexpr,  # steps whose states are held in registers
    SUM: tl.constexpr,  # how dx is summed over directions: "none", "in turn" by one program, or "atomic"
    ATOMIC_BC: tl.constexpr,  # whether channel blocks add to the same dB and dC
    PAUSES: tl.constexpr,  # whether a direction may pause, or a group may end beyond the path
    RESETS: tl.constexpr,  # whether the path has marks
    ALL_CHANNELS: tl.constexpr,  # whether the blocks hold no more than the channels
    ALL_STATES: tl.constexpr,
    WIDE: tl.constexpr,  # whether offsets within a batch item need 64 bits
):
    """All seven gradients; those of A, D and delta_bias for each batch item, to be summed over the batch."""
    program = tl.program_id(0)
    splits = directions // directions_each
    first_direction = program % splits * directions_each
    block = program // splits % blocks
    item = (program // (splits * blocks)).to(tl.int64)

    lane = tl.arange(0, BLOCK)
    c = block * BLOCK + lane
    n = tl.arange(0, STATES)
    in_channels = part_below(c, channels, ALL_CHANNELS)
    in_states = part_below(n, states, ALL_STATES)
    in_tile = in_channels[:, None] & in_states[None, :]
    note_tile = lane[:, None] * STATES + n[None, :]
    state_notes += program.to(tl.int64) * (chunk // GROUP) * BLOCK * STATES
    step_notes += program.to(tl.int64) * chunk * BLOCK
    x += item * length * channels
    dx += item * length * channels
    dy += item * length * channels

    for k in range(first_direction, first_direction + directions_each):
        row = item * length * directions + k
        delta_k = delta + row * channels
        ddelta_k = ddelta + row * channels
        B_k = B + row * states
        C_k = C + row * states
        dB_k = dB + far(block, block_stride) + row * states
        dC_k = dC + far(block, block_stride) + row * states
        order = table + k * steps
        marks = resets + k * steps
        parameter_tile = (k * channels + c)[:, None] * states + n[None, :]
        # Beyond the last state −1: a rate of zero times an infinite step would be NaN.
        rates = tl.load(A + parameter_tile, mask=in_tile, other=-1.0).to(tl.float32) * LOG2_E
        skip = tl.load(D + k * channels + c, mask=in_channels, other=0.0).to(tl.float32)
        bias = tl.load(delta_bias + k * channels + c, mask=in_channels, other=0.0).to(tl.float32)
        kept_tile = c[:, None] * states + n[None, :]
        first_checkpoint = (item * directions + k) * kept
        dh = tl.zeros([BLOCK, STATES], tl.float32)
        dA_sum = tl.zeros([BLOCK, STATES], tl.float32)
        dD_sum = tl.zeros([BLOCK], tl.float32)
        dbias_sum = tl.zeros([BLOCK], tl.float32)

        for index in range(tl.cdiv(steps, chunk) - 1, -1, -1):
            first = index * chunk
            groups = tl.cdiv(tl.minimum(chunk, steps - first), GROUP)
            checkpoint = checkpoints + (first_checkpoint + index - 1) * channels * states
            h = tl.load(checkpoint + kept_tile, mask=in_tile & (index > 0), other=0.0)
            for group in range(groups):
                start = first + group * GROUP
                xs, rs, Bs, lives = (), (), (), ()
                for u in tl.static_range(GROUP):
                    p = position_at(order, start + u, steps, PAUSES, WIDE)
                    part = visited_part(in_channels, p, PAUSES)
                    of_state = visited_part(in_states, p, PAUSES)
                    lives += (p >= 0,)
                    xs += (tl.load(x + p * channels + c, mask=part, other=0.0).to(tl.float32),)
                    r = tl.load(delta_k + p * directions * channels + c, mask=part, other=0.0).to(tl.float32) + bias
                    rs += (r,)
                    Bs += (tl.load(B_k + p * directions * states + n, mask=of_state, other=0.0).to(tl.float32),)
                tl.store(state_notes + group * BLOCK * STATES + note_tile, h)
                for u in tl.static_range(GROUP):
                    step_size = softplus(rs[u])
                    if PAUSES:
                        step_size = tl.where(lives[u], step_size, 0.0)
                    tl.store(step_notes + (group * GROUP + u) * BLOCK + lane, step_size)
                    if RESETS:
                        h = tl.where(starts_anew(marks, start + u, steps), 0.0, h)
                    decay = tl.exp2(step_size[:, None] * rates)
                    if PAUSES:
                        # Not left to exp(0): a rate of minus infinity would make it NaN.
                        decay = tl.where(lives[u], decay, 1.0)
                    drive = (step_size * xs[u])[:, None] * Bs[u][None, :]
                    h = decay * h + without_padding(drive, in_states, ALL_STATES)
            # The notes are read by other threads of this program than wrote them.
            tl.debug_barrier()

            for group in range(groups - 1, -1, -1):
                start = first + group * GROUP
                h = tl.load(state_notes + group * BLOCK * STATES + note_tile)
                befores, dCs = (), ()
                for u in tl.static_range(GROUP):
                    p = position_at(order, start + u, steps, PAUSES, WIDE)
                    part = visited_part(in_channels, p, PAUSES)
                    of_state = visited_part(in_states, p, PAUSES)
                    step_size = tl.load(step_notes + (group * GROUP + u) * BLOCK + lane)
                    x_p = tl.load(x + p * channels + c, mask=part, other=0.0).to(tl.float32)
                    g = tl.load(dy + p * channels + c, mask=part, other=0.0).to(tl.float32)
                    B_p = tl.load(B_k + p * directions * states + n, mask=of_state, other=0.0).to(tl.float32)
                    if RESETS:
                        h = tl.where(starts_anew(marks, start + u, steps), 0.0, h)
                    befores += (h,)
                    decay = tl.exp2(step_size[:, None] * rates)
                    if PAUSES:
                        decay = tl.where(p >= 0, decay, 1.0)
                    drive = (step_size * x_p)[:, None] * B_p[None, :]
                    h = decay * h + without_padding(drive, in_states, ALL_STATES)
                    dCs += (tl.sum(g[:, None] * h, 0),)
                # Written before anything is read again: so what was read above is read a second time, from the cache,
                # and not held in registers meanwhile.
                for u in tl.static_range(GROUP):
                    p = position_at(order, start + u, steps, PAUSES, WIDE)
                    target = dC_k + p * directions * states + n
                    of_state = visited_part(in_states, p, PAUSES)
                    if ATOMIC_BC:
                        tl.atomic_add(target, dCs[u], mask=of_state, sem="relaxed")
                    else:
                        tl.store(target, dCs[u].to(dC.dtype.element_ty), mask=of_state)

                for u in tl.static_range(GROUP - 1, -1, -1):
                    p = position_at(order, start + u, steps, PAUSES, WIDE)
                    part = visited_part(in_channels, p, PAUSES)
                    of_state = visited_part(in_states, p, PAUSES)
                    step_size = tl.load(step_notes + (group * GROUP + u) * BLOCK + lane)
                    x_p = tl.load(x + p * channels + c, mask=part, other=0.0).to(tl.float32)
                    g = tl.load(dy + p * channels + c, mask=part, other=0.0).to(tl.float32)
                    r = tl.load(delta_k + p * directions * channels + c, mask=part, other=0.0).to(tl.float32) + bias
                    B_p = tl.load(B_k + p * directions * states + n, mask=of_state, other=0.0).to(tl.float32)
                    C_p = tl.load(C_k + p * directions * states + n, mask=of_state, other=0.0).to(tl.float32)
                    dx_target = dx + p * channels + c
                    if SUM == "in turn":
                        before = tl.load(dx_target, mask=part, other=0.0)
                    dh += without_padding(g[:, None] * C_p[None, :], in_states, ALL_STATES)
                    dB_p = tl.sum(dh * (step_size * x_p)[:, None], 0)
                    dscaled = tl.sum(dh * B_p[None, :], 1)
                    decay = tl.exp2(step_size[:, None] * rates)
                    if PAUSES:
                        decay = tl.where(p >= 0, decay, 1.0)
                    dh *= decay
                    q = dh * befores[u]
                    if PAUSES:
                        # Where a state is infinite, 0 · q would be NaN.
                        q = tl.where(p >= 0, q, 0.0)
                    dA_sum += q * step_size[:, None]
                    dstep = tl.sum(q * rates, 1) * LN_2 + dscaled * x_p
                    if RESETS:
                        dh = tl.where(starts_anew(marks, start + u, steps), 0.0, dh)
                    dr = dstep * softplus_derivative(r)
                    dx_p = dscaled * step_size + g * skip
                    if PAUSES:
                        dr = tl.where(p >= 0, dr, 0.0)
                    dD_sum += g * x_p
                    dbias_sum += dr
                    if SUM == "atomic":
                        tl.atomic_add(dx_target, dx_p, mask=part, sem="relaxed")
                    elif SUM == "in turn":
                        tl.store(dx_target, before + dx_p, mask=part)
                    else:
                        tl.store(dx_target, dx_p.to(dx.dtype.element_ty), mask=part)
                    tl.store(ddelta_k + p * directions * channels + c, dr.to(ddelta.dtype.element_ty), mask=part)
                    dB_target = dB_k + p * directions * states + n
                    if ATOMIC_BC:
                        tl.atomic_add(dB_target, dB_p, mask=of_state, sem="relaxed")
                    else:
                        tl.store(dB_target, dB_p.to(dB.dtype.element_ty), mask=of_state)
            # The next chunk's notes overwrite these; the next direction adds to the same dx.
            tl.debug_barrier()

        item_row = item * directions * channels + k * channels + c
        tl.store(dA + item_row[:, None] * states + n[None, :], dA_sum, mask=in_tile)
        tl.store(dD + item_row, dD_sum, mask=in_channels)
        tl.store(ddelta_bias + item_row, dbias_sum, mask=in_channels)
