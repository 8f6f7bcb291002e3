"""Scans of parts of a map: grids of every s-th row and column, laid apart and put together again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from medmamba_variants.design.scan_policy import Part


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
