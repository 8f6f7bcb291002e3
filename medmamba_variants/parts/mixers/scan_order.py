"""Orders of positions that are made while the network runs: at random in every step, or by learned scores.

The positions are laid out anew as a map of the same size, through which the fixed directions go; then they go back.
The same permutation holds for x, Δ, B and C, which are made of what has been laid out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medmamba_variants.design.scan_policy import KNOTS
from medmamba_variants.parts.init import linear
from medmamba_variants.scan.directions import hashed

Scan = Callable[[Tensor], Tensor]


class RandomStep(nn.Module):
    """A permutation of the positions for all images, another in every training step, always the same in evaluation.

    It depends on a seed, drawn with the weights, and on a counter of steps, both kept in the state: training that goes
    on from a checkpoint sees the permutations that it would have seen, on every device.
    """

    seed: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seed", torch.randint(1 << 31, ()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, inner: Tensor, scan: Scan) -> Tensor:
        order = self.permutation(inner.shape[1] * inner.shape[2])
        tokens = inner.flatten(1, 2).index_select(1, order)
        y = scan(tokens.view(inner.shape)).flatten(1, 2)
        return y.index_select(1, order.argsort()).view(inner.shape)

    def permutation(self, length: int) -> Tensor:
        """The positions (length,) in the order of this step."""
        positions = torch.arange(length, device=self.seed.device)
        if not self.training:
            return torch.argsort(hashed(0, positions), stable=True)
        with torch.no_grad():
            self.steps += 1
        return torch.argsort(hashed(self.seed, self.steps, positions), stable=True)


class LearnedOrder(nn.Module):
    """Positions of each image sorted by a score: a learned curve over the places, plus what a linear map sees in each.

    s = σ(g) + σ(w·x), with g linear between knots along the rows. Sorting has no gradient: the score learns because it
    is added to the tokens, times a learned vector, which is what a linear map makes of it as one more channel. From
    Yang et al., "ASM-UNet", with one curve for its three, 64 knots for its 2048, and w·x for its w·Mamba(x). Shuffled,
    the order is that of the scores of other positions, the same for all images, so that it means nothing, while the
    score is still added: the control.
    """

    def __init__(self, channels: int, shuffled: bool) -> None:
        super().__init__()
        self.curve = nn.Parameter(torch.randn(KNOTS))
        self.score = linear(channels, 1, bias=True)
        self.direction = nn.Parameter(torch.randn(channels) * channels**-0.5)
        self.shuffle = RandomStep() if shuffled else None

    def forward(self, inner: Tensor, scan: Scan) -> Tensor:
        tokens = inner.flatten(1, 2)
        scores = self.scores(tokens)
        tokens = tokens + (scores[..., None] * self.direction).to(tokens.dtype)
        order = self.order(scores.detach())[..., None].expand_as(tokens)
        y = scan(tokens.gather(1, order).view(inner.shape)).flatten(1, 2)
        return y.gather(1, order.argsort(1)).view(inner.shape)

    def scores(self, tokens: Tensor) -> Tensor:
        """The scores (batch, length) of tokens (batch, length, channels)."""
        length = tokens.shape[1]
        places = torch.arange(length, dtype=self.curve.dtype, device=tokens.device)[:, None]
        knots = torch.arange(KNOTS, dtype=self.curve.dtype, device=tokens.device)
        # A hat of each knot: linear interpolation as a product, whose gradient is the same in every run.
        distance = places * ((KNOTS - 1) / max(length - 1, 1)) - knots
        hats = torch.relu(1 - torch.relu(distance) - torch.relu(-distance))
        return torch.sigmoid(hats @ self.curve[:, None]).T + torch.sigmoid(self.score(tokens)).squeeze(-1)

    def order(self, scores: Tensor) -> Tensor:
        """The positions (batch, length) in the order in which they are scanned."""
        if self.shuffle is not None:
            scores = scores.index_select(1, self.shuffle.permutation(scores.shape[1]))
        return torch.argsort(scores, dim=1, stable=True)
