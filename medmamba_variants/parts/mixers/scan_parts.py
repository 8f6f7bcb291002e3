"""Scans of parts of a map: grids of every s-th row and column, or a quarter of the positions for all."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from medmamba_variants.design.scan_policy import Part
from medmamba_variants.parts.constants import kept
from medmamba_variants.scan.directions import hashed
from medmamba_variants.scan.paths import ScanPath, custom_path


def by_grids(x: Tensor, parts: tuple[Part, ...], step: int, scan: Callable[[Tensor, Part], Tensor]) -> Tensor:
    """What `scan` makes of each grid of a map (batch, height, width, channels), put back where it came from.

    There is a part for each of the step² grids, row by row; grids of a map smaller than their offset are left out.
    """
    height, width = x.shape[1:3]
    rows, columns = -(-height // step), -(-width // step)
    grids = []
    for part in parts:
        grid = x[:, part.row :: step, part.column :: step]
        y = scan(grid, part) if grid.shape[1] and grid.shape[2] else grid
        # All as large as the first, so that they can be laid side by side.
        grids.append(F.pad(y, (0, 0, 0, columns - y.shape[2], 0, rows - y.shape[1])))
    # (batch, offset of rows, offset of columns, rows, columns, channels)
    laid = torch.stack(grids, 1).unflatten(1, (step, step)).permute(0, 3, 1, 4, 2, 5)
    return laid.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def quarter(x: Tensor, scan: Callable[[Tensor], Tensor]) -> Tensor:
    """What `scan` makes of the first position of each 2×2 patch of a map, given to all of the patch (QuarterMap)."""
    height, width = x.shape[1:3]
    y = scan(x[:, ::2, ::2])
    rows, columns = y.shape[1:3]
    # Nearest neighbours: each row and column twice.
    twice = y[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
    return twice.reshape(len(y), 2 * rows, 2 * columns, -1)[:, :height, :width]


def merge_similar(x: Tensor, scan: Callable[[Tensor], Tensor]) -> Tensor:
    """What `scan` makes of the first positions of all 2×2 patches once the other positions have been merged into them.

    Each goes into the one most similar to it by cosine, wherever on the map, and takes that one's output; what is
    scanned are means (ToMe, Bolya et al. 2023, with one destination a patch).
    """
    first, others, back = _firsts(x.shape[1], x.shape[2], x.device)
    tokens = x.flatten(1, 2)
    stay, merged = tokens.index_select(1, first), tokens.index_select(1, others)
    with torch.no_grad():
        into = (_unit(merged) @ _unit(stay).transpose(1, 2)).argmax(-1, keepdim=True)
        ones = torch.ones_like(stay[:, :, :1])
        sizes = ones.scatter_add(1, into, torch.ones_like(merged[:, :, :1]))
    into = into.expand(-1, -1, tokens.shape[2])
    means = stay.scatter_add(1, into, merged) / sizes
    y = scan(means.view(x[:, ::2, ::2].shape)).flatten(1, 2)
    return torch.cat((y, y.gather(1, into)), 1).index_select(1, back).view(x.shape)


def _unit(tokens: Tensor) -> Tensor:
    """Tokens of length one; of zeros zeros."""
    return tokens * (tokens * tokens).sum(-1, keepdim=True).clamp_min(1e-12).rsqrt()


@kept
def _firsts(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the first positions of all 2×2 patches, of all others, and where each position stands among these."""
    rows, columns = np.divmod(np.arange(height * width), width)
    is_first = (rows % 2 == 0) & (columns % 2 == 0)
    order = np.concatenate((np.flatnonzero(is_first), np.flatnonzero(~is_first)))
    parts = np.split(order, [int(is_first.sum())])
    first, others, back = (torch.from_numpy(each).to(device) for each in (*parts, np.argsort(order)))
    return first, others, back


def random_quarter(
    x: Tensor, path_of: Callable[[int, int], ScanPath], scan: Callable[[Tensor, ScanPath], Tensor]
) -> Tensor:
    """What `scan` makes of positions drawn at random, as many as there are 2×2 patches, given to the nearest others."""
    height, width = x.shape[1:3]
    kept, nearest, path = _drawn(path_of(height, width), height, width)
    tokens = x.flatten(1, 2).index_select(1, kept.to(x.device))
    y = scan(tokens[:, None], path)[:, 0]
    return y.index_select(1, nearest.to(x.device)).view(x.shape)


@lru_cache(maxsize=256)
def _drawn(whole: ScanPath, height: int, width: int) -> tuple[Tensor, Tensor, ScanPath]:
    """Positions drawn once for all, which of them is nearest to each position, and the path through them alone."""
    length, count = height * width, -(-height // 2) * -(-width // 2)
    kept = np.sort(np.argsort(hashed(1, np.arange(length)), kind="stable")[:count])
    rows, columns = np.divmod(np.arange(length), width)
    squares = (rows[:, None] - rows[kept]) ** 2 + (columns[:, None] - columns[kept]) ** 2
    place = np.full(length, -1)
    place[kept] = np.arange(count)
    table, resets = [], []
    for positions, marks in zip(whole.table, whole.resets):
        remaining = place[positions] >= 0
        # Counted from the first run, a run that has lost its first position still begins at its next.
        run = np.cumsum(marks)[remaining]
        table.append(place[positions][remaining])
        resets.append(np.diff(run, prepend=0) > 0)
    # Kept for good, also where inference mode, an export or a default device asked first.
    with _disable_current_modes(), torch.inference_mode(False), torch.device("cpu"):
        indices = torch.from_numpy(kept), torch.from_numpy(squares.argmin(1))
    return *indices, custom_path(np.stack(table), count, np.stack(resets))
