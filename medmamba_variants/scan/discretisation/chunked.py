"""The portable backend under other rules of discretisation than Mamba's, in plain torch operations.

As there, the states are kept where chunks of steps begin, and the backward pass recomputes a chunk's from them. Within
a chunk all but the recurrence itself runs for all steps at once, on tensors (steps, K, batch, d_state, channels).
"""

import torch
from torch import Tensor

from medmamba_variants.scan.chunks import Chunk, Path
from medmamba_variants.scan.discretisation.factors import factors, factors_and_slopes


def forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, table: Tensor,
    resets: Tensor, need_backward: bool, discretisation: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Forward pass: y (batch, length, channels) and the chunks' first states for `backward` (empty if not needed)."""
    batch, length, channels = x.shape
    K, _, d_state = A.shape
    path, before = Path(table, resets), _positions_before(table, resets)
    h = x.new_zeros(K, batch, d_state, channels)
    kept = []
    y = x.new_zeros(length, batch, channels)
    for start in path.chunks:
        if need_backward:
            kept.append(h)
        chunk = Chunk(path, start, x, delta, B, C, delta_bias)
        terms = _Terms(path, chunk, start, before, x, A, B, discretisation)
        states = terms.states(path, start, h)
        # Its own memory: what is kept must not hold on to the other states of its chunk.
        h = states[-1].clone()
        result = (chunk.C.unsqueeze(3) @ states[1:]).squeeze(3).addcmul_(chunk.x, D.unsqueeze(1))
        y.index_add_(0, chunk.positions, chunk.without_pauses(result).flatten(0, 1))
    checkpoints = torch.stack(kept) if kept else x.new_empty(0)
    return y.transpose(0, 1).contiguous(), checkpoints


def backward(
    dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    table: Tensor, resets: Tensor, checkpoints: Tensor, discretisation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, delta, A, B, C, D and delta_bias."""
    batch, length, channels = x.shape
    path, before = Path(table, resets), _positions_before(table, resets)
    dh = x.new_zeros(checkpoints.shape[1:])
    # Time-major; a step writes to its own row of B and, where the rule reads it, to that of the step before.
    dx, dB = x.new_zeros(length, batch, channels), x.new_zeros(length * path.K, batch, A.shape[2])
    ddelta, dC = torch.zeros_like(delta), torch.zeros_like(C)
    dA, dD, ddelta_bias = torch.zeros_like(A), torch.zeros_like(D), torch.zeros_like(delta_bias)
    for index, start in reversed(list(enumerate(path.chunks))):
        chunk = Chunk(path, start, x, delta, B, C, delta_bias)
        terms = _Terms(path, chunk, start, before, x, A, B, discretisation, True)
        states = terms.states(path, start, checkpoints[index])
        g = chunk.without_pauses(path.gather(dy, chunk.positions, chunk.count))
        dC_steps = (states[1:] @ g.unsqueeze(4)).squeeze(4)
        # The gradient of each step's state, and of what enters it.
        dstates = chunk.C.unsqueeze(4) * g.unsqueeze(3)
        for i in reversed(range(chunk.count)):
            dh = dh + dstates[i]
            dstates[i] = dh
            dh = dh * terms.decay[i]
            if (anew := path.resets_at(start + i)) is not None:
                dh.masked_fill_(anew, 0)
        ddecay = dstates * terms.starts(path, start, states)
        Δ = chunk.Δ.unsqueeze(3)
        dentering = dstates * Δ
        dz = ddecay * terms.slopes[0] + dentering * terms.slopes[1] * terms.u
        du = dentering * terms.now
        dx_steps, dB_steps = _product_gradients(du, chunk.x, chunk.B)
        if terms.before is not None and terms.slopes[2] is not None:
            dz += dentering * terms.slopes[2] * terms.u_before
            dx_before, dB_before = _product_gradients(dentering * terms.before, terms.x_before, terms.B_before)
            dx.index_add_(0, terms.positions, dx_before.masked_fill_(terms.none, 0).flatten(0, 1))
            dB.index_add_(0, terms.rows, dB_before.masked_fill_(terms.none, 0).flatten(0, 1))
        # Where a direction pauses, A · h may be anything, and the step's size has no gradient.
        dΔ = chunk.without_pauses((dstates * terms.entering() + dz * terms.A_rows).sum(3))
        dA += (dz * Δ).sum((0, 2)).transpose(1, 2)
        dD += (g * chunk.x).sum((0, 2))
        dx_steps.addcmul_(g, D.unsqueeze(1))
        dx.index_add_(0, chunk.positions, chunk.without_pauses(dx_steps).flatten(0, 1))
        dB.index_add_(0, chunk.rows, chunk.without_pauses(dB_steps).flatten(0, 1))
        dr = dΔ.mul_(chunk.r.sigmoid())
        ddelta_bias += chunk.without_pauses(dr).sum((0, 2))
        chunk.scatter(ddelta, dr)
        chunk.scatter(dC, dC_steps)
    return (
        dx.transpose(0, 1).contiguous(),
        ddelta,
        dA,
        dB.transpose(0, 1).unflatten(1, (length, path.K)).contiguous(),
        dC,
        dD,
        ddelta_bias,
    )


def _positions_before(table: Tensor, resets: Tensor) -> Tensor:
    """The position that each step's direction visited before (steps, K); −1 at pauses, and where a state is new."""
    steps = torch.arange(table.shape[1], device=table.device).expand_as(table)
    latest = steps.masked_fill(table < 0, -1).cummax(1).values
    latest = torch.nn.functional.pad(latest[:, :-1], (1, 0), value=-1)
    before = table.long().gather(1, latest.clamp(min=0))
    return before.masked_fill((latest < 0) | (table < 0) | (resets != 0), -1).t()


def _product_gradients(du: Tensor, x: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of x (…, channels) and B (…, d_state) from that of u = B xᵀ (…, d_state, channels)."""
    return (B.unsqueeze(3) @ du).squeeze(3), (du @ x.unsqueeze(4)).squeeze(4)


class _Terms:
    """The terms of a rule at a chunk's steps, in visiting order: factors, and what they multiply."""

    def __init__(
        self, path: Path, chunk: Chunk, start: int, before: Tensor, x: Tensor, A: Tensor, B: Tensor, rule: str,
        with_slopes: bool = False,
    ) -> None:  # fmt: skip
        self.A_rows = A.transpose(1, 2).unsqueeze(1)
        self.Δ = chunk.Δ.unsqueeze(3)
        # Zero where a direction pauses, which then neither decays nor gains anything.
        self.z = self.Δ * self.A_rows
        if with_slopes:
            (self.decay, self.now, self.before), self.slopes = factors_and_slopes(rule, self.z)
        else:
            self.decay, self.now, self.before = factors(rule, self.z)
        self.u = chunk.B.unsqueeze(4) * chunk.x.unsqueeze(3)
        if self.before is not None:
            positions = before[start : start + chunk.count]
            self.none = (positions < 0)[:, :, None, None]
            self.positions = positions.clamp(min=0).reshape(-1)
            directions = torch.arange(path.K, device=before.device)
            self.rows = (positions.clamp(min=0) * path.K + directions).reshape(-1)
            self.x_before = path.gather(x, self.positions, chunk.count).masked_fill_(self.none, 0)
            self.B_before = path.gather(B.flatten(1, 2), self.rows, chunk.count).masked_fill_(self.none, 0)
            self.u_before = self.B_before.unsqueeze(4) * self.x_before.unsqueeze(3)

    def entering(self) -> Tensor:
        """What enters the state at each step, for each unit of Δ."""
        return self.now * self.u if self.before is None else self.now * self.u + self.before * self.u_before

    def states(self, path: Path, start: int, h: Tensor) -> Tensor:
        """The state before the chunk, h, and after each of its steps, (1 + steps, K, batch, d_state, channels)."""
        entering = self.entering() * self.Δ
        states = h.new_empty(1 + len(entering), *h.shape)
        states[0] = h
        for i, enters in enumerate(entering):
            before = states[i]
            if (anew := path.resets_at(start + i)) is not None:
                before = before.masked_fill(anew, 0)
            torch.addcmul(enters, self.decay[i], before, out=states[i + 1])
        return states

    def starts(self, path: Path, start: int, states: Tensor) -> Tensor:
        """The state that each step starts from: that of the step before, or a new one."""
        starts = states[:-1]
        resets = [(i, anew) for i in range(len(starts)) if (anew := path.resets_at(start + i)) is not None]
        if resets:
            starts = starts.clone()
            for i, anew in resets:
                starts[i].masked_fill_(anew, 0)
        return starts
