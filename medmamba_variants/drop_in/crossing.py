"""VMamba's cross scan and cross merge in torch operations, for maps on any device."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from medmamba_variants.scan.paths import scan_path

# The four sequences by VMamba's number of the way to scan: across, in one direction, in both.
WAYS = {
    0: ("rows", "columns", "rows_reverse", "columns_reverse"),
    1: ("rows",) * 4,
    2: ("rows", "rows", "rows_reverse", "rows_reverse"),
}


def cross_scan_fn(
    x: Tensor, in_channel_first: bool = True, out_channel_first: bool = True, one_by_one: bool = False,
    scans: int = 0, force_torch: bool = False,
) -> Tensor:  # fmt: skip
    """A map as four sequences: (batch, channels, height, width) → (batch, 4, channels, length), or channels last.

    One by one, the map has the axis of 4 already, (batch, 4, channels, height, width), and each is read its own way;
    channels last it is (batch, height, width, 4, channels) → (batch, length, 4, channels).
    """
    if not in_channel_first:
        x = x.permute(0, 3, 4, 1, 2) if one_by_one else x.permute(0, 3, 1, 2)
    height, width = x.shape[-2:]
    order, _ = _orders(scans, height, width, x.device)
    flat = x.flatten(-2)
    if not one_by_one:
        flat = flat.unsqueeze(1).expand(-1, 4, -1, -1)
    y = flat.gather(3, order[None, :, None].expand_as(flat))
    return y if out_channel_first else y.permute(0, 3, 1, 2).contiguous()


def cross_merge_fn(
    y: Tensor, in_channel_first: bool = True, out_channel_first: bool = True, one_by_one: bool = False,
    scans: int = 0, force_torch: bool = False,
) -> Tensor:  # fmt: skip
    """Four sequences (batch, 4, channels, height, width) back on one map (batch, channels, length), added up.

    One by one they are not added: (batch, 4, channels, length). With channels last y is (batch, height, width, 4,
    channels) and what comes (batch, length, channels); `out_channel_first` and `in_channel_first` name, as in
    `cross_scan_fn`, the sequences and the map.
    """
    if not out_channel_first:
        y = y.permute(0, 3, 4, 1, 2)
    height, width = y.shape[-2:]
    _, back = _orders(scans, height, width, y.device)
    flat = y.flatten(-2)
    x = flat.gather(3, back[None, :, None].expand_as(flat))
    if not one_by_one:
        x = x.sum(1)
    if in_channel_first:
        return x
    return x.permute(0, 3, 1, 2).contiguous() if one_by_one else x.transpose(1, 2).contiguous()


@lru_cache(maxsize=64)
def _orders(scans: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions in the order of each sequence, (4, length), and where each position stands in it."""
    if scans not in WAYS:
        raise ValueError(f"scans must be one of {', '.join(map(str, WAYS))}, got {scans}")
    table = scan_path(WAYS[scans], height, width).table.astype(np.int64)
    with torch.inference_mode(False):
        return tuple(torch.from_numpy(each).to(device) for each in (table.copy(), table.argsort(axis=1)))  # type: ignore[return-value]
