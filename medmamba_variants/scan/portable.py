"""Portable backend: the scan in plain torch operations, on any device and in any floating dtype.

Time-major: the states of all batches and directions are one tensor (K, batch, d_state, channels), updated in place step
by step. The forward pass keeps the states at the start of each chunk of steps; the backward pass recomputes a chunk's
states from them.
Symbols as in `reference`; `Δ` is the step size after softplus, `r` the number before it.
"""

import torch
from torch import Tensor

from medmamba_variants.scan.chunks import Chunk, Path, chunk_size
from medmamba_variants.scan.discretisation import chunked
from medmamba_variants.scan.discretisation.rules import RULES

# The rules of discretisation that this backend knows.
DISCRETISATIONS = RULES


def forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, table: Tensor,
    resets: Tensor, need_backward: bool, discretisation: str = "mamba",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Forward pass: y (batch, length, channels) and the chunks' first states for `backward` (empty if not needed)."""
    if discretisation != "mamba":
        inputs = (x, delta, A, B, C, D, delta_bias, table, resets)
        with _without_autocast(x):
            return chunked.forward(*inputs, need_backward, discretisation)
    batch, length, channels = x.shape
    K, _, d_state = A.shape
    path = Path(table, resets)
    A_rows = A.transpose(1, 2).contiguous().unsqueeze(1)  # (K, 1, d_state, channels)
    h = x.new_zeros(K, batch, d_state, channels)
    h_matrices = h.view(K * batch, d_state, channels)
    decay = torch.empty_like(h)
    checkpoints = x.new_empty(checkpoint_shape(x, A, path.steps) if need_backward else (0,))
    y = x.new_zeros(length, batch, channels)
    for index, start in enumerate(path.chunks):
        if need_backward:
            checkpoints[index] = h
        chunk = Chunk(path, start, x, delta, B, C, delta_bias)
        outputs = x.new_empty(chunk.count, K * batch, 1, channels)
        C_matrices = chunk.C.view(chunk.count, K * batch, 1, d_state).unbind()
        steps = zip(chunk.Δ_rows, chunk.Δx_rows, chunk.B_columns, C_matrices, outputs.unbind(), strict=True)
        for i, (Δ, Δx, B_column, C_matrix, output) in enumerate(steps):
            if (anew := path.resets_at(start + i)) is not None:
                h.masked_fill_(anew, 0)
            torch.mul(Δ, A_rows, out=decay).exp_()
            if (paused := path.pauses_at(start + i)) is not None:
                decay.masked_fill_(paused, 1)
            h.mul_(decay).addcmul_(Δx, B_column)
            torch.bmm(C_matrix, h_matrices, out=output)
        result = outputs.view(chunk.count, K, batch, channels)
        result.addcmul_(chunk.x, D.unsqueeze(1))
        y.index_add_(0, chunk.positions, chunk.without_pauses(result).flatten(0, 1))
    return y.transpose(0, 1).contiguous(), checkpoints


def backward(
    dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    table: Tensor, resets: Tensor, checkpoints: Tensor, discretisation: str = "mamba",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, delta, A, B, C, D and delta_bias."""
    if discretisation != "mamba":
        inputs = (x, delta, A, B, C, D, delta_bias, table, resets)
        with _without_autocast(x):
            return chunked.backward(dy, *inputs, checkpoints, discretisation)
    batch, length, channels = x.shape
    K, _, d_state = A.shape
    path = Path(table, resets)
    A_rows = A.transpose(1, 2).contiguous().unsqueeze(1)
    # The gradient of the state, and of A before its sum over the batch.
    dh = x.new_zeros(K, batch, d_state, channels)
    dh_matrices = dh.view(K * batch, d_state, channels)
    dA = torch.zeros_like(dh)
    product = torch.empty_like(dh)
    states = x.new_empty(path.chunk + 1, K, batch, d_state, channels)
    decays = x.new_empty(path.chunk, K, batch, d_state, channels)
    dx = x.new_zeros(length, batch, channels)
    # A direction may leave positions out: their gradient is zero.
    new = torch.empty_like if path.visited == K * length else torch.zeros_like
    ddelta, dB, dC = new(delta), new(B), new(C)
    dD, ddelta_bias = x.new_zeros(K, channels), x.new_zeros(K, channels)
    for index, start in reversed(list(enumerate(path.chunks))):
        chunk = Chunk(path, start, x, delta, B, C, delta_bias)
        count = chunk.count
        g = chunk.without_pauses(path.gather(dy, chunk.positions, count))
        g_rows = g.unsqueeze(3).unbind()
        C_columns = chunk.C.unsqueeze(4).unbind()
        states[0] = checkpoints[index]
        before: list[Tensor] = []  # the state each step starts from
        for i in range(count):
            h = states[i]
            if (anew := path.resets_at(start + i)) is not None:
                h = h.masked_fill(anew, 0)
            before.append(h)
            torch.mul(chunk.Δ_rows[i], A_rows, out=decays[i]).exp_()
            if (paused := path.pauses_at(start + i)) is not None:
                decays[i].masked_fill_(paused, 1)
            torch.mul(h, decays[i], out=states[i + 1]).addcmul_(chunk.Δx_rows[i], chunk.B_columns[i])

        dΔx, dΔ = torch.empty_like(chunk.x), torch.empty_like(chunk.x)
        dB_steps, dC_steps = torch.empty_like(chunk.B), torch.empty_like(chunk.C)
        # The same memory as one matrix a (direction, batch): a row times a matrix is the fast case of bmm.
        matrices = (count, K * batch, 1)
        g_matrices, Δx_matrices = g.view(*matrices, channels), chunk.Δx.view(*matrices, channels)
        B_matrices, dΔx_matrices = chunk.B.view(*matrices, d_state), dΔx.view(*matrices, channels)
        dB_matrices, dC_matrices = dB_steps.view(*matrices, d_state), dC_steps.view(*matrices, d_state)
        for i in reversed(range(count)):
            dh.addcmul_(g_rows[i], C_columns[i])
            torch.bmm(g_matrices[i], states[i + 1].view_as(dh_matrices).mT, out=dC_matrices[i])
            torch.bmm(Δx_matrices[i], dh_matrices.mT, out=dB_matrices[i])
            torch.bmm(B_matrices[i], dh_matrices, out=dΔx_matrices[i])
            dh.mul_(decays[i])
            torch.mul(dh, before[i], out=product)  # the gradient of Δ · A
            if (paused := path.pauses_at(start + i)) is not None:
                product.masked_fill_(paused, 0)
            dA.addcmul_(product, chunk.Δ_rows[i])
            torch.sum(product.mul_(A_rows), 2, out=dΔ[i])
            if (anew := path.resets_at(start + i)) is not None:
                dh.masked_fill_(anew, 0)

        dx_steps = dΔx * chunk.Δ
        dx_steps.addcmul_(g, D.unsqueeze(1))
        dD += (g * chunk.x).sum((0, 2))
        dx.index_add_(0, chunk.positions, chunk.without_pauses(dx_steps).flatten(0, 1))
        dr = chunk.without_pauses(dΔ.addcmul_(dΔx, chunk.x).mul_(chunk.r.sigmoid_()))
        ddelta_bias += dr.sum((0, 2))
        chunk.scatter(ddelta, dr)
        chunk.scatter(dB, dB_steps)
        chunk.scatter(dC, dC_steps)
    return (
        dx.transpose(0, 1).contiguous(),
        ddelta,
        dA.sum(1).transpose(1, 2).contiguous(),
        dB,
        dC,
        dD,
        ddelta_bias,
    )


def checkpoint_shape(x: Tensor, A: Tensor, steps: int) -> tuple[int, ...]:
    """The shape of the checkpoints that `forward` returns when a backward pass will follow."""
    K, channels, d_state = A.shape
    return -(-steps // chunk_size(steps)), K, x.shape[0], d_state, channels


def supports(x: Tensor) -> bool:
    """Whether x can be scanned: any real floating dtype, any device."""
    return x.dtype.is_floating_point


def _without_autocast(x: Tensor) -> torch.autocast:
    """A context in which products keep the state's precision; those here that write to given tensors do anyway."""
    return torch.autocast(x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu", enabled=False)
