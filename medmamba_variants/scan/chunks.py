"""A path and its inputs in chunks of steps, as the backends in plain torch operations read them."""

from math import isqrt

import torch
from torch import Tensor


def softplus(r: Tensor) -> Tensor:
    """log(1 + exp(r)) = max(r, 0) + 2 · artanh(e / (2 + e)) with e = exp(−|r|): exact to rounding.

    torch's own softplus and log1p are five times slower on a CPU, not being vectorised there.
    """
    e = r.abs().neg_().exp_()
    return e.div_(e + 2).atanh_().mul_(2).add_(r.clamp(min=0))


def chunk_size(steps: int) -> int:
    # Memory is steps / chunk checkpoints and twice a chunk of states: least near the root of half the steps.
    return max(8, isqrt(steps // 2))


class Path:
    """A path's table and marks, read once on the host: a path without pauses and resets pays nothing for them."""

    def __init__(self, table: Tensor, resets: Tensor) -> None:
        self.K, self.steps = table.shape
        self.chunk = chunk_size(self.steps)
        self.chunks = range(0, self.steps, self.chunk)
        order = table.t().long()  # (steps, K)
        pauses, marks = order < 0, resets.t() != 0
        self.positions = order.clamp(min=0)
        # Row of (position, direction) in tensors that have a direction axis.
        self.rows = self.positions * self.K + torch.arange(self.K, device=table.device)
        self.visited = order.numel() - int(pauses.sum())
        self.pauses: Tensor | None = pauses if self.visited < order.numel() else None
        self.paused_steps = frozenset(pauses.any(1).nonzero().flatten().tolist())
        # A mark at step 0 has nothing to clear.
        self.reset_steps = frozenset(marks.any(1).nonzero().flatten().tolist()) - {0}
        self.marks = marks

    def pauses_at(self, step: int) -> Tensor | None:
        """Which directions pause at a step, to be broadcast over their states; None where none does."""
        return self.pauses[step].view(-1, 1, 1, 1) if self.pauses is not None and step in self.paused_steps else None

    def resets_at(self, step: int) -> Tensor | None:
        """Which directions start anew before a step; None where none does."""
        return self.marks[step].view(-1, 1, 1, 1) if step in self.reset_steps else None

    def gather(self, rows_of: Tensor, rows: Tensor, count: int) -> Tensor:
        """Rows of a (batch, rows, …) tensor as (count, K, batch, …)."""
        return rows_of.transpose(0, 1).index_select(0, rows).unflatten(0, (count, self.K))


class Chunk:
    """The inputs at a chunk's steps, in visiting order (count, K, batch, …); all zero where a direction pauses."""

    def __init__(
        self, path: Path, start: int, x: Tensor, delta: Tensor, B: Tensor, C: Tensor, delta_bias: Tensor
    ) -> None:
        end = min(start + path.chunk, path.steps)
        self.count = end - start
        self.positions = path.positions[start:end].reshape(-1)
        self.rows = path.rows[start:end].reshape(-1)
        self.pauses = path.pauses[start:end, :, None, None] if path.pauses is not None else None
        self.x = self.without_pauses(path.gather(x, self.positions, self.count))
        self.r = path.gather(delta.flatten(1, 2), self.rows, self.count).add_(delta_bias.unsqueeze(1))
        self.Δ = self.without_pauses(softplus(self.r))
        self.Δx = self.Δ * self.x
        self.B = self.without_pauses(path.gather(B.flatten(1, 2), self.rows, self.count))
        self.C = self.without_pauses(path.gather(C.flatten(1, 2), self.rows, self.count))
        self.Δ_rows = self.Δ.unsqueeze(3).unbind()
        self.Δx_rows = self.Δx.unsqueeze(3).unbind()
        self.B_columns = self.B.unsqueeze(4).unbind()

    def without_pauses(self, values: Tensor) -> Tensor:
        """The same tensor, set to zero in place where a direction pauses: not a product, so NaN cannot leak."""
        return values if self.pauses is None else values.masked_fill_(self.pauses, 0)

    def scatter(self, target: Tensor, values: Tensor) -> None:
        """Writes values (count, K, batch, …) to the visited rows of a (batch, length, K, …) tensor."""
        values = values.flatten(0, 1)
        rows = self.rows
        if self.pauses is not None:
            visited = (~self.pauses).flatten().nonzero().flatten()
            rows, values = rows[visited], values[visited]
        target.flatten(1, 2).transpose(0, 1).index_copy_(0, rows, values)
