"""The matrix memory of xLSTM as a layer, along paths over the map.

Symbols, with their place in Beck et al., "xLSTM" (2024), section 2.3, and Alkin et al., "Vision-LSTM" (2024):

    H, P     heads, and the inner channels of each
    K        the number of scan directions, each with gates of its own
    q, k, v  (batch, length, H, P) queries, keys and values
    i, f     (batch, length, K, H) input gate and forget gate, before exponential and sigmoid
    C, n     the memory, P × P a head, and its normaliser: C_t = σ(f_t) C_{t−1} + exp(i_t) k_t v_tᵀ, and n with 1 for v
    m        the stabiliser: exp(−m) C is what is computed
    z        the output gate

The output of a head is C q / max(|n·q|, 1), then a layer norm of the head. Vision-LSTM scans one way in each block, its
gate's convolution is causal in one dimension or 3×3, and its projections to q, k, v are of blocks of four channels;
here all directions of the map are scanned and summed, and the blocks are heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.sequences import recurrent as design
from medmamba_variants.design.sequences.duality import CHUNK
from medmamba_variants.parts.mixers.wiring import Wired, WiredBranch
from medmamba_variants.scan.dual.op import dual_scan
from medmamba_variants.scan.dual.products import in_order, in_place
from medmamba_variants.scan.op import must_dispatch
from medmamba_variants.scan.paths import ScanPath, scan_path

# First values of the forget gates, evenly over the heads between them (xLSTM's code): long memory.
FORGET_MIN, FORGET_MAX = 3.0, 6.0
INPUT_DEVIATION = 0.1


def matrix_memory(q: Tensor, k: Tensor, v: Tensor, input_gate: Tensor, forget_gate: Tensor, path: ScanPath) -> Tensor:
    """The sum (batch, length, H, P) over the K directions of a path of what is read: C q / max(|n·q|, 1).

    q, k, v (batch, length, H, P), keys scaled by P^−½ here; gates (batch, length, K, H) before their functions. The
    stabiliser m_t = max(log σ(f_t) + m_{t−1}, i_t) keeps every exponential at 1 or below; no result depends on it.
    """
    log_forget = F.logsigmoid(forget_gate)
    with torch.no_grad():
        forgotten = in_order(log_forget, path).cumsum(2)
        highest = forgotten + (in_order(input_gate, path) - forgotten).cummax(2).values
        before = torch.cat([highest[:, :, :1], highest[:, :, :-1]], 2)
        m, shift = in_place(highest, path), in_place(before - highest, path)
    # A column of ones beside the values makes the normaliser.
    values = torch.cat([v, torch.ones_like(v[..., :1])], -1)[:, :, None]
    keys = (k * k.shape[-1] ** -0.5)[:, :, None]
    written, log_decay = torch.exp(input_gate - m), log_forget + shift
    read = dual_scan(values, written, log_decay, keys, q[:, :, None], path, CHUNK, merged=False)
    floor = torch.exp(-m)
    if must_dispatch(read):
        return (read[..., :-1] / torch.maximum(read[..., -1:].abs(), floor[..., None])).sum(2)
    summed: Tensor = _Readout.apply(read, floor)
    return summed


class _Readout(torch.autograd.Function):
    """The sum over directions of read / max(|last column|, floor): direction after direction, without a copy of all."""

    @staticmethod
    def forward(ctx: Any, read: Tensor, floor: Tensor) -> Tensor:
        inverse = torch.maximum(read[..., -1].abs(), floor).reciprocal_()
        ctx.save_for_backward(read, floor, inverse)
        y = read[:, :, 0, :, :-1] * inverse[:, :, 0, :, None]
        for k in range(1, read.shape[2]):
            y.addcmul_(read[:, :, k, :, :-1], inverse[:, :, k, :, None])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        read, floor, inverse = ctx.saved_tensors
        gradient = torch.empty_like(read)
        weight = read[..., -1]
        # Where the floor decides the weight has no gradient; a tie is the weight's.
        slope = torch.where(weight.abs() >= floor, weight.sign(), 0) * inverse.square()
        for k in range(read.shape[2]):
            torch.mul(dy, inverse[:, :, k, :, None], out=gradient[:, :, k, :, :-1])
            torch.mul((dy * read[:, :, k, :, :-1]).sum(-1), slope[:, :, k], out=gradient[:, :, k, :, -1])
        gradient[..., -1].neg_()
        return gradient, None


class MLSTM(Wired):
    """Gated matrix memory of a map (batch, height, width, channels) along all directions; keeps the shape."""

    def __init__(self, channels: int, component: design.MLSTM) -> None:
        super().__init__(channels, component, component.inner(channels))
        self.directions, self.heads = component.directions, component.heads
        each, count = self.d_inner // self.heads, len(self.directions)
        # Of queries, keys and values, each a map within heads.
        self.qkv_weight = nn.Parameter(torch.empty(3, self.heads, each, each))
        self.gates = nn.Linear(3 * self.d_inner, 2 * count * self.heads)
        self.skip = nn.Parameter(torch.ones(self.d_inner))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.normal_(self.qkv_weight, std=(self.d_inner // self.heads) ** -0.5)
        nn.init.zeros_(self.gates.weight)
        bias = self.gates.bias.view(2, -1, self.heads)
        nn.init.normal_(bias[0], std=INPUT_DEVIATION)
        bias[1] = torch.linspace(FORGET_MIN, FORGET_MAX, self.heads, device=bias.device)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        inner, z = self.halves(x)
        seen = self.convolved(inner).flatten(1, 2)
        # The values are of the map as it is, queries and keys of what the convolution saw.
        sources = torch.stack([seen, seen, inner.flatten(1, 2)]).unflatten(-1, (self.heads, -1))
        q, k, v = (
            (sources.transpose(1, 3).flatten(2, 3) @ self.qkv_weight)
            .unflatten(2, (height * width, len(x)))
            .transpose(1, 3)
        )
        gates = self.gates(torch.cat([q, k, v], -1).flatten(2)).unflatten(-1, (2, len(self.directions), self.heads))
        # In the state's precision: float32 for half precision, but float64 stays.
        dtype = torch.promote_types(seen.dtype, torch.float32)
        q, k, v, gates = (each.to(dtype) for each in (q, k, v, gates))
        # The meta device, on which costs are counted, knows no autocast.
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            path = scan_path(self.directions, height, width)
            y = matrix_memory(q, k, v, gates[:, :, 0], gates[:, :, 1], path)
            # Each head is normed by itself.
            y = F.layer_norm(y, y.shape[-1:]).flatten(2) * self.out_norm.weight + self.out_norm.bias
        return self.joined((y + seen * self.skip).unflatten(1, (height, width)), z)


class MLSTMBranch(WiredBranch):
    """Layer norm, matrix memory along paths, drop path. Map in, map of the same shape out."""

    layer = MLSTM
