"""Rotary embeddings: pairs of channels turned by angles, so that products know differences of angles."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medmamba_variants.parts.constants import kept

# The slowest angle grows by about the inverse of this from row to row (RoFormer, section 3.2).
BASE = 10000.0


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns neighbouring channels as pairs: (a, b) becomes (a cos − b sin, a sin + b cos).

    x (…, size), cos and sin (…, pairs) of each pair's angle; channels after the last pair stay as they are.
    """
    pairs = cos.shape[-1]
    first, second = x[..., : 2 * pairs].unflatten(-1, (pairs, 2)).unbind(-1)
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2)
    return turned if x.shape[-1] == 2 * pairs else torch.cat([turned, x[..., 2 * pairs :]], -1)


@kept
def position_angles(height: int, width: int, heads: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine (heads, height · width, size // 2), float64, of each position's angles; kept.

    The pairs of all heads, one head after the other, share two series of ever slower angles: the first half turns with
    the row, the second with the column (Han et al., "Demystify Mamba in vision", 2024, over all channels).
    """
    pairs = heads * (size // 2)
    along_rows = (pairs + 1) // 2
    rate = BASE ** -(np.arange(along_rows) / along_rows)
    row, column = (part.ravel()[:, None] for part in np.indices((height, width)))
    angles = np.concatenate([row * rate, column * rate[: pairs - along_rows]], 1)
    angles = angles.reshape(height * width, heads, size // 2).swapaxes(0, 1)
    cos, sin = (torch.from_numpy(function(angles)).to(device) for function in (np.cos, np.sin))
    return cos, sin
