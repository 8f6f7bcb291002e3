"""The dual scan in products over chunks of steps: any device, any floating dtype, plain autograd."""

from __future__ import annotations

import math
from functools import lru_cache
from operator import index

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medmamba_variants.scan.paths import NUMBERED, ScanPath, constant_of_graphs


def chunked_scan(x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, chunk: int) -> Tensor:
    """y_t = C_t h_t with h_t = exp(log_decay_t) h_{t−1} + B_t x_tᵀ for every head, in products over chunks of steps.

    x (batch, length, H, P), log_decay (batch, length, H) of no positive number, B and C (batch, length, N), the same
    for all heads; y like x. Mamba-2, section 6, with products in place of its running sums.
    """
    length, heads, width = x.shape[1:]
    size = min(chunk, length)
    count = math.ceil(length / size)
    missing = count * size - length
    # Steps after the last that write nothing.
    x, log_decay = F.pad(x, (0, 0, 0, 0, 0, missing)), F.pad(log_decay, (0, 0, 0, missing))
    B, C = (F.pad(each, (0, 0, 0, missing)).unflatten(1, (count, size)) for each in (B, C))
    x = x.unflatten(1, (count, size))
    # The decays since a chunk began, (batch, count, H, size).
    since = _running_sums(log_decay.unflatten(1, (count, size)).transpose(2, 3))
    reach = torch.exp(_differences(since, since, 1))
    y = ((C @ B.transpose(2, 3))[:, :, None] * reach) @ x.transpose(2, 3)
    if count > 1:
        ends = B.transpose(2, 3) @ (x * torch.exp(since[..., -1:] - since).transpose(2, 3)[..., None]).flatten(3)
        whole = since[..., -1].transpose(1, 2)
        until = _running_sums(whole)
        # From the end of each chunk to the start of each later one.
        kept = torch.exp(_differences(until - whole, until, 0))
        starts = kept @ ends.unflatten(3, (heads, width)).permute(0, 3, 1, 2, 4).flatten(3)
        starts = starts.unflatten(3, (B.shape[-1], width)).permute(0, 2, 3, 1, 4).flatten(3)
        y = y + (C @ starts).unflatten(3, (heads, width)).transpose(2, 3) * torch.exp(since)[..., None]
    return y.transpose(2, 3).flatten(1, 2)[:, :length]


def _running_sums(terms: Tensor) -> Tensor:
    """Sums along the last axis up to each term, itself included; as a product, whose cost is counted."""
    ones = torch.ones(terms.shape[-1], terms.shape[-1], dtype=terms.dtype, device=terms.device)
    return terms @ ones.triu()


def _differences(to: Tensor, since: Tensor, diagonal: int) -> Tensor:
    """to_i − since_j for all j < i + diagonal; of the others −inf, before an exponential that could overflow."""
    size = to.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=to.device).triu(diagonal)
    return (to[..., :, None] - since[..., None, :]).masked_fill(later, -math.inf)


def scan_by_products(
    x: Tensor, scale: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, path: ScanPath, merged: bool, chunk: int
) -> Tensor:
    """The dual scan of `scan.dual.op`, with its arguments, by `chunked_scan` along each direction."""
    batch, K, length = len(x), path.directions, path.length
    heads, groups = x.shape[3], B.shape[3]
    # Each direction, and each group of heads, is an image of its own.
    scale, log_decay = (in_order(each, path).unflatten(3, (groups, heads // groups)) for each in (scale, log_decay))
    x = in_order(x, path).unflatten(3, (groups, heads // groups)) * scale[..., None]
    B, C = in_order(B, path), in_order(C, path)
    if groups == 1:
        x, log_decay, B, C = (each.squeeze(3).flatten(0, 1) for each in (x, log_decay, B, C))
    else:
        x, log_decay, B, C = (each.transpose(2, 3).flatten(0, 2) for each in (x, log_decay, B, C))
    y = chunked_scan(x, log_decay, B, C, chunk)
    if groups > 1:
        y = y.unflatten(0, (batch * K, groups)).transpose(1, 2).flatten(2, 3)
    y = y.unflatten(0, (batch, K)).flatten(1, 2)
    if merged:
        return y.index_select(1, _orders(index(path.number), x.device)[2]).unflatten(1, (K, length)).sum(1)[:, :, None]
    return in_place(y.unflatten(1, (K, length)), path)


def in_order(values: Tensor, path: ScanPath) -> Tensor:
    """Values (batch, length, 1 or K, …) of a map as (batch, K, length, …), each direction in its visiting order."""
    # An index is a constant to a compiler, an object is not.
    read, write, _ = _orders(index(path.number), values.device)
    if values.shape[2] < path.directions:
        return values[:, :, 0].index_select(1, read).unflatten(1, (path.directions, path.length))
    return values.flatten(1, 2).index_select(1, write).unflatten(1, (path.directions, path.length))


def in_place(values: Tensor, path: ScanPath) -> Tensor:
    """Values (batch, K, length, …) in visiting order as (batch, length, K, …) of a map: undoes `in_order`."""
    back = _orders(index(path.number), values.device)[2]
    return values.flatten(1, 2).index_select(1, back).unflatten(1, (path.directions, path.length)).transpose(1, 2)


@lru_cache(maxsize=256)
def _cached_orders(number: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    table = NUMBERED[number].table.astype(np.int64)
    count, length = table.shape
    each = np.arange(count)[:, None]
    indices = (table, table * count + each, table.argsort(axis=1) + each * length)
    read, write, back = (torch.from_numpy(index.ravel()).to(device) for index in indices)
    return read, write, back


@constant_of_graphs
def _orders(number: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where K paths find their steps in (length, …), in (length · K, …), and positions in (K · length, …); cached."""
    # What inference mode makes could not be an index in training afterwards; and a default device is for weights.
    with torch.inference_mode(False), torch.device("cpu"):
        return _cached_orders(number, device)
