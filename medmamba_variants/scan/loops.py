"""The scan as a loop that a graph can hold, for files that run without this suite: torch's own operators alone.

Within `as_loops` what is traced gets torch's `scan` in place of the registered operators, which no other program knows;
in ONNX it becomes the operator Scan. There are no gradients: it is for networks that are trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import index

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from medmamba_variants.scan.discretisation.factors import factors
from medmamba_variants.scan.paths import NUMBERED, ScanPath, constant_of_graphs
from medmamba_variants.scan.products import product

_asked_for = False


@contextmanager
def as_loops() -> Iterator[None]:
    """Context in which a tracer sees the scans of this process as loops."""
    global _asked_for
    before, _asked_for = _asked_for, True
    try:
        yield
    finally:
        _asked_for = before


def asked_for() -> bool:
    """Whether a tracer is to see loops."""
    return _asked_for


def loop_over_path(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, path: ScanPath,
    delta_weight: Tensor | None, discretisation: str,
) -> Tensor:  # fmt: skip
    """The 2-D selective scan of `ss2d_scan`, with its arguments, all directions in one loop over their steps."""
    batch, length, channels = x.shape
    K, _, N = A.shape
    dtype = torch.promote_types(torch.promote_types(x.dtype, A.dtype), torch.float32)
    x, A, B, C, D = x.to(dtype), A.to(dtype), B.to(dtype), C.to(dtype), D.to(dtype)
    made = delta.to(dtype) if delta_weight is None else product(delta.to(dtype), delta_weight.to(dtype))
    places, rows, visited, kept, back = _places(index(path.number), x.device)
    visits, goes_on = visited.to(dtype), kept.to(dtype)

    def in_order(values: Tensor) -> Tensor:
        """Values (batch, length, K, size) at each direction's steps, (steps, K, batch, size)."""
        return values.flatten(1, 2).transpose(0, 1).index_select(0, rows).unflatten(0, (path.steps, K))

    # A pause is a step of size zero: the state neither decays nor takes anything.
    Δ = softplus(in_order(made + delta_bias.to(dtype))) * visits[:, :, None, None]
    xs = x.transpose(0, 1).index_select(0, places).unflatten(0, (path.steps, K))
    # Laid out like the state, which a loop must return as it got it.
    A_rows = A.transpose(1, 2).contiguous().unsqueeze(1)  # (K, 1, N, channels)
    start = x.new_zeros(K, batch, N, channels)
    inputs = (Δ, xs, in_order(B), in_order(C), goes_on, visits)
    if discretisation == "mamba":
        ys = _scan_of_mamba(A_rows, start, inputs)
    else:
        ys = _scan_of_rule(discretisation, A_rows, start, inputs)
    ys = ys + xs * D.unsqueeze(1)
    # A row of zeros beyond the last, for positions that no step of a direction visits.
    rows_of = torch.cat([ys.flatten(0, 1), x.new_zeros(1, batch, channels)])
    return rows_of.index_select(0, back).unflatten(0, (K, length)).sum(0).transpose(0, 1)


def _scan_of_mamba(A_rows: Tensor, start: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    from torch._higher_order_ops.scan import scan

    def step(h: Tensor, now: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        Δ, x, B, C, goes_on, _ = now
        decay = torch.exp(Δ.unsqueeze(2) * A_rows) * goes_on[:, None, None, None]
        h = decay * h + (Δ * x).unsqueeze(2) * B.unsqueeze(3)
        return h, (C.unsqueeze(3) * h).sum(2)

    ys: Tensor = scan(step, start, inputs)[1]
    return ys


def _scan_of_rule(rule: str, A_rows: Tensor, start: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    from torch._higher_order_ops.scan import scan

    def step(states: tuple[Tensor, Tensor], now: tuple[Tensor, ...]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        Δ, x, B, C, goes_on, visits = now
        h, u_before = states
        on, here = goes_on[:, None, None, None], visits[:, None, None, None]
        h, u_before = h * on, u_before * on
        u = B.unsqueeze(3) * x.unsqueeze(2)
        decay, of_now, of_before = factors(rule, Δ.unsqueeze(2) * A_rows)
        entering = of_now * u if of_before is None else of_now * u + of_before * u_before
        h = decay * h + Δ.unsqueeze(2) * entering
        return (h, here * u + (1 - here) * u_before), (C.unsqueeze(3) * h).sum(2)

    ys: Tensor = scan(step, (start, torch.zeros_like(start)), inputs)[1]
    return ys


def loop_over_lines(decay: Tensor, drive: Tensor, axis: int) -> Tensor:
    """h_i = decay_i · h_{i−1} + drive_i along an axis, with h_{−1} = 0: `lines.scan_lines` as a loop."""
    from torch._higher_order_ops.scan import scan

    def step(h: Tensor, now: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        factor, enters = now
        h = factor * h + enters
        return h, h.clone()

    # In memory as the steps leave it.
    start = drive.new_zeros(drive.select(axis, 0).shape)
    states: Tensor = scan(step, start, (decay.contiguous(), drive.contiguous()), dim=axis)[1]
    return states


@constant_of_graphs
def _places(number: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Where the steps of a path find positions, (steps · K,), and rows (position, direction), likewise.

    Then (steps, K) whether a step visits, and goes on with the state before; and for each direction and position the
    row (step, direction) that visited it, (K · length,), or the one after the last.
    """
    path = NUMBERED[number]
    order, K = path.table.T.astype(np.int64), path.directions
    visited = order >= 0
    places = np.where(visited, order, 0)
    back = np.full((K, path.length), order.size)
    steps, directions = visited.nonzero()
    back[directions, order[visited]] = steps * K + directions
    found = (places.ravel(), (places * K + np.arange(K)).ravel(), visited, path.resets.T == 0, back.ravel())
    with torch.inference_mode(False):
        made = [torch.from_numpy(np.ascontiguousarray(each)).to(device) for each in found]
    return made[0], made[1], made[2], made[3], made[4]
