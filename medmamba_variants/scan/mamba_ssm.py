"""Backend on mamba-ssm's CUDA kernels, for comparison: torch lays out every direction, and adds up the results.

It is used only when requested by name. The kernels have no marks, so paths on which a state starts anew are refused.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Since 2.3 its setup builds these kernels only on request.
INSTALL = "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation 'mamba-ssm>=2.2.4'"
try:
    from mamba_ssm.ops import selective_scan_interface
except ImportError as error:
    raise ImportError(f"{error} ({INSTALL})") from error
if getattr(selective_scan_interface, "selective_scan_cuda", None) is None:
    raise ImportError(f"mamba_ssm was built without its scan's kernels ({INSTALL})")

UNAVAILABLE: str | None = None if torch.cuda.is_available() else "its kernels need a CUDA device"
# A step size before softplus that makes an empty step: the state stays and takes no input.
NO_STEP = -1e4


def supports(x: Tensor) -> bool:
    """Whether these kernels can scan tensors like x: float32 on a GPU."""
    return x.device.type == "cuda" and x.dtype == torch.float32


def checkpoint_shape(x: Tensor, A: Tensor, steps: int) -> tuple[int, ...]:
    """The shape of the checkpoints: none are kept, the backward pass runs the forward pass once more."""
    return (0,)


@dataclass
class _Context:
    """Stand-in for autograd's context: keeps what mamba-ssm's forward pass saves for its backward pass."""

    saved_tensors: tuple[Tensor | None, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors = tensors


@dataclass(frozen=True)
class _Orders:
    """Conversion between tensors in spatial order and mamba-ssm's, which are in the order of each direction."""

    length: int
    order: Tensor  # (K, steps), an arbitrary position for a pause
    paused: Tensor  # (K, steps)
    target: Tensor  # (K, steps), pauses beyond the last position

    @staticmethod
    def of(length: int, table: Tensor) -> "_Orders":
        positions, paused = table.long(), table < 0
        return _Orders(length, positions.clamp(min=0), paused, positions.masked_fill(paused, length))

    def lay_out(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Values (batch, length, K, size) as (batch, K, size, steps)."""
        rows = self._index(self.order, values.shape[0], values.shape[3])
        gathered = values.gather(1, rows).masked_fill(self.paused.t().unsqueeze(2), fill)
        return gathered.permute(0, 2, 3, 1).contiguous()

    def put_back(self, values: Tensor) -> Tensor:
        """Values (batch, K, size, steps) as (batch, length, K, size)."""
        batch, K, size, _ = values.shape
        result = values.new_zeros(batch, self.length + 1, K, size)
        # A direction visits a position at most once.
        result.scatter_(1, self._index(self.target, batch, size), values.permute(0, 3, 1, 2))
        return result[:, : self.length].contiguous()

    def merge(self, values: Tensor) -> Tensor:
        """Values (batch, K, size, steps) summed over directions: (batch, length, size)."""
        result = values.new_zeros(values.shape[0], self.length + 1, values.shape[2])
        result.index_add_(1, self.target.flatten(), values.permute(0, 1, 3, 2).flatten(1, 2))
        return result[:, : self.length].contiguous()

    def _index(self, positions: Tensor, batch: int, size: int) -> Tensor:
        return positions.t().unsqueeze(2).expand(batch, -1, -1, size)


def _scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, orders: _Orders
) -> tuple[Tensor, _Context]:
    """mamba-ssm's scan of every direction, (batch, K · channels, steps), and what its backward pass needs."""
    context = _Context()
    ys: Tensor = selective_scan_interface.SelectiveScanFn.forward(
        context,
        orders.lay_out(_of_directions(x, A)).flatten(1, 2),
        orders.lay_out(delta, NO_STEP).flatten(1, 2),
        A.flatten(0, 1),
        orders.lay_out(B),
        orders.lay_out(C),
        D.flatten(),
        None,
        delta_bias.flatten(),
        True,
    )
    return ys, context


def _of_directions(x: Tensor, A: Tensor) -> Tensor:
    """(batch, length, channels) as (batch, length, K, channels), without a copy."""
    return x.unsqueeze(2).expand(-1, -1, A.shape[0], -1)


def forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, table: Tensor,
    resets: Tensor, need_backward: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Forward pass of the backend; keeps nothing for the backward pass. Raises ValueError for a path with marks."""
    if bool(resets[:, 1:].any()):
        raise ValueError("mamba_ssm needs a path without marks, got one on which a state starts anew")
    if x.numel() == 0:
        return torch.empty_like(x), x.new_empty(0)
    orders = _Orders.of(x.shape[1], table)
    ys, _ = _scan(x, delta, A, B, C, D, delta_bias, orders)
    return orders.merge(ys.unflatten(1, A.shape[:2])), x.new_empty(0)


def backward(
    dy: Tensor, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    table: Tensor, resets: Tensor, checkpoints: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, delta, A, B, C, D and delta_bias; runs the scan again.

    Not by autograd: inside an operator it is switched off for this thread, and from another thread it would wait for
    the device's worker, which may be the one waiting here.
    """
    if x.numel() == 0:
        return tuple(torch.zeros_like(tensor) for tensor in (x, delta, A, B, C, D, delta_bias))
    orders = _Orders.of(x.shape[1], table)
    _, context = _scan(x, delta, A, B, C, D, delta_bias, orders)
    du, ddelta, dA, dB, dC, dD, _, dbias, *_ = selective_scan_interface.SelectiveScanFn.backward(
        context, orders.lay_out(_of_directions(dy, A)).flatten(1, 2)
    )
    return (
        orders.merge(du.unflatten(1, A.shape[:2])),
        orders.put_back(ddelta.unflatten(1, A.shape[:2])),
        dA.view_as(A),
        orders.put_back(dB),
        orders.put_back(dC),
        dD.view_as(D),
        dbias.view_as(delta_bias),
    )
