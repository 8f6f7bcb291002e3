"""Routing of images to scan directions: a small gate keeps the best few of them for each image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.parts.init import linear


class Router(nn.Module):
    """The k best of some experts for each image, from the mean of its map, and the weights of their outputs.

    Scores are W_g·mean, in training with normal noise times softplus(W_n·mean); the weights are the softmax of the best
    k. Shazeer et al., "Outrageously large neural networks" (2017), as in Switch-UMamba, without a loss that balances
    the experts.
    """

    def __init__(self, channels: int, experts: int, kept: int) -> None:
        super().__init__()
        self.kept = kept
        self.gate = linear(channels, experts, bias=False)
        self.noise = nn.Parameter(torch.zeros(experts, channels))

    def forward(self, x: Tensor, expert: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The weighed sum of what the experts make of maps (batch, height, width, channels), each of its images."""
        weights = self.weights(x.mean((1, 2)))
        y = torch.zeros_like(x)
        for index in range(weights.shape[1]):
            # The meta device, on which costs are counted, has no scores: any k experts cost as much.
            able = torch.arange(len(x) if index < self.kept else 0, device=x.device)
            images = able if x.is_meta else weights[:, index].nonzero().squeeze(1)
            if len(images):
                weight = weights[:, index].index_select(0, images).to(x.dtype)[:, None, None, None]
                y = y.index_add(0, images, expert(index, x.index_select(0, images)) * weight)
        return y

    def weights(self, means: Tensor) -> Tensor:
        """The weights (batch, experts) of images with these means, zero but for k of each."""
        scores = self.gate(means)
        if self.training:
            scores = scores + torch.randn_like(scores) * F.softplus(F.linear(means, self.noise))
        best, experts = scores.float().topk(self.kept, dim=1)
        return torch.zeros_like(scores, dtype=best.dtype).scatter(1, experts, best.softmax(1))
