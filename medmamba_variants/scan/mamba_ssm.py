"""The scan by mamba-ssm's CUDA kernels, for comparison: torch lays every direction out, and adds the results up.

Used only when asked for by name. The kernels know no marks, so paths on which a state starts anew are refused.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

# Since 2.3 its setup builds these kernels only when told to.
INSTALL = "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation 'mamba-ssm>=2.2.4'"
try:
    from mamba_ssm.ops import selective_scan_interface
except ImportError as error:
    raise ImportError(f"{error} ({INSTALL})") from error
if getattr(selective_scan_interface, "selective_scan_cuda", None) is None:
    raise ImportError(f"mamba_ssm was built without its scan's kernels ({INSTALL})")

UNAVAILABLE: str | None = None if torch.cuda.is_available() else "its kernels need a CUDA device"
# A step size before softplus that makes a step of nothing: the state stays and takes no input.
NO_STEP = -1e4


def supports(x: Tensor) -> bool:
    """Whether these kernels can scan tensors like x: float32 on a GPU."""
    return x.device.type == "cuda" and x.dtype == torch.float32


def checkpoint_shape(x: Tensor, A: Tensor, steps: int) -> tuple[int, ...]:
    """The shape of the checkpoints: none are kept, the backward pass runs the forward pass once more."""
    return (0,)


def scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    table: Tensor,
    resets: Tensor,
) -> Tensor:
    """y (batch, length, channels) as in `reference.scan`, with autograd; ValueError on a path with marks."""
    if bool(resets[:, 1:].any()):
        raise ValueError("mamba_ssm needs a path without marks, got one on which a state starts anew")
    batch, length, channels = x.shape
    K, steps = table.shape
    order, paused = table.long().clamp(min=0), table < 0

    def laid_out(values: Tensor, fill: float) -> Tensor:
        """Values (batch, length, K, size) as (batch, K, size, steps) in the order of each direction."""
        rows = order.t().unsqueeze(2).expand(batch, steps, K, values.shape[3])
        gathered = values.gather(1, rows).masked_fill(paused.t().unsqueeze(2), fill)
        return gathered.permute(0, 2, 3, 1).contiguous()

    y = selective_scan_interface.selective_scan_fn(
        laid_out(x.unsqueeze(2).expand(batch, length, K, channels), 0.0).flatten(1, 2),
        laid_out(delta, NO_STEP).flatten(1, 2),
        A.flatten(0, 1),
        laid_out(B, 0.0),
        laid_out(C, 0.0),
        D.flatten(),
        delta_bias=delta_bias.flatten(),
        delta_softplus=True,
    )
    # Pauses go to a position beyond the last.
    target = table.long().masked_fill(paused, length).flatten()
    merged = x.new_zeros(batch, length + 1, channels)
    rows = y.unflatten(1, (K, channels)).permute(0, 1, 3, 2).flatten(1, 2)
    return merged.index_add(1, target, rows)[:, :length].contiguous()


def forward(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    table: Tensor,
    resets: Tensor,
    need_backward: bool,
) -> tuple[Tensor, Tensor]:
    """The scan as a backend; it keeps nothing for the backward pass."""
    y = scan(x, delta, A, B, C, D, delta_bias, table, resets) if x.numel() else torch.empty_like(x)
    return y, x.new_empty(0)


def backward(
    dy: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    table: Tensor,
    resets: Tensor,
    checkpoints: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of x, delta, A, B, C, D and delta_bias: the scan once more, differentiated by autograd."""
    inputs = (x, delta, A, B, C, D, delta_bias)
    if x.numel() == 0:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    stream = torch.cuda.current_stream(x.device) if x.is_cuda else None

    def gradients() -> tuple[Tensor, ...]:
        # Device and stream belong to a thread, too.
        with torch.enable_grad(), torch.cuda.stream(stream):
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            x, delta, A, B, C, D, delta_bias = leaves
            y = scan(x, delta, A, B, C, D, delta_bias, table, resets)
            return torch.autograd.grad(y, leaves, dy, allow_unused=True, materialize_grads=True)

    # Inside an operator this thread's autograd is switched off, and modes may watch it: another thread is free.
    with ThreadPoolExecutor(max_workers=1) as other_thread:
        return tuple(gradient.contiguous() for gradient in other_thread.submit(gradients).result())
