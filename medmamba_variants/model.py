"""The network from top to bottom: stem, stages of blocks with a halving between them, head.

Maps are (batch, height, width, channels) and contiguous from stem to head; convolutions see them as channels-last
views (batch, channels, height, width), without a copy.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.layers import calculate_drop_path_rates
from torch import Tensor, nn

from medmamba_variants.config import VariantConfig
from medmamba_variants.parts.block import Block
from medmamba_variants.parts.downsampling import Downsampling
from medmamba_variants.parts.init import first_values, linear
from medmamba_variants.parts.stem import ColourConversion

# Ends of the names of scan parameters, which S4 and Mamba spare weight decay; it spares vectors anyway.
SPARED = ("A_logs", "Ds", "dt_projs_bias", "mixer.Bs", "mixer.Cs", "direction_embedding")


def build_model(
    config: VariantConfig, *, num_classes: int, in_channels: int = 3, seed: int | None = None
) -> MedMambaVariant:
    """The network of a variant for images with `in_channels` channels, freshly initialised on the default device.

    With a seed the weights depend on it alone, on every device; without, they follow torch's global generator.
    Raises ValueError where the variant cannot take that many channels.
    """
    if seed is None:
        with first_values():
            return MedMambaVariant(config, num_classes, in_channels)
    # Random numbers depend on the kind of device: seeded weights are drawn on the CPU, wherever they are to go.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = MedMambaVariant(config, num_classes, in_channels)
    return model.to(torch.get_default_device())


class MedMambaVariant(nn.Module):
    """The network of a variant: images (batch, channels, height, width) in, logits (batch, classes) out."""

    def __init__(self, config: VariantConfig, num_classes: int, in_channels: int) -> None:
        super().__init__()
        if num_classes < 1 or in_channels < 1:
            raise ValueError(
                f"num_classes and in_channels must be at least 1, got num_classes={num_classes}, "
                f"in_channels={in_channels}"
            )
        self.config = config
        self.in_channels = in_channels
        self.colour = ColourConversion(config.input_channels, in_channels)
        structure, dims = config.structure, config.dims
        stem, position = structure.stem, structure.position
        self.stem = stem.builder()(self.colour.channels_out, dims[0], config.patch_size, stem)
        self.position = nn.Identity() if position is None else position.builder()(dims[0], position)
        # Rising linearly from block to block, one list per stage, whatever timm's docstring says of stagewise.
        rates = cast(
            list[list[float]], calculate_drop_path_rates(config.drop_path_rate, list(config.depths), stagewise=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(stage, rate) for stage, rate in zip(blocks, stage_rates, strict=True)))
            for blocks, stage_rates in zip(structure.blocks, rates, strict=True)
        )
        self.downsamplings = nn.ModuleList(Downsampling(stage, config) for stage in range(len(config.depths) - 1))
        # upstream: no norm between the last stage and the head.
        self.final_norm = config.final_norm
        if self.final_norm != "none":
            self.norm = nn.LayerNorm(dims[-1])
        self.head = linear(dims[-1], num_classes, bias=True)
        # Filters in the layout of the maps: otherwise every step would convert them, and their gradients back.
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        last = self.forward_features(x)[-1]
        if self.final_norm == "map":
            last = self.norm(last)
        pooled = last.mean((1, 2))
        return self.head(self.norm(pooled) if self.final_norm == "pooled" else pooled)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The output of every stage before halving, (batch, height, width, channels) each.

        Raises ValueError for images of the wrong shape, and where a stage would be left without a pixel.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"images must be (batch, {self.in_channels} channels, height, width), got {tuple(x.shape)}"
            )
        self.config.map_sizes(x.shape[2], x.shape[3])
        x = self.position(self.stem(self.colour(x)))
        features = [self.stages[0](x)]
        for halve, stage in zip(self.downsamplings, self.stages[1:]):
            features.append(stage(halve(features[-1])))
        return features

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay must leave alone although they are not vectors."""
        return {name for name, _ in self.named_parameters() if name.endswith(SPARED)}
