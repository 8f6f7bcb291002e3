"""The network from top to bottom: stem, stages of blocks with a halving between them, head.

Maps are (batch, height, width, channels) and contiguous from stem to head; convolutions see them as channels-last
views of (batch, channels, height, width), which costs no copy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmamba_variants.blocks import Block
from medmamba_variants.config import VariantConfig
from medmamba_variants.convs import convolution
from medmamba_variants.downsampling import Downsampling
from medmamba_variants.ss2d import linear

# Rec. 601 luma: what a grey picture of an RGB one is.
LUMA = (0.299, 0.587, 0.114)


def build_model(
    config: VariantConfig, *, num_classes: int, in_channels: int = 3, seed: int | None = None
) -> MedMambaVariant:
    """The network of a variant for images with `in_channels` channels, freshly initialised on the default device.

    With a seed the weights depend on it alone, on every device; without, they follow torch's global generator.
    Raises ValueError where the variant cannot read that many channels.
    """
    if seed is None:
        return MedMambaVariant(config, num_classes, in_channels)
    # Each kind of device draws numbers of its own: seeded weights are drawn on the CPU, wherever they are to go.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = MedMambaVariant(config, num_classes, in_channels)
    return model.to(torch.get_default_device())


class MedMambaVariant(nn.Module):
    """A variant of MedMamba: images (batch, channels, height, width) in, logits (batch, classes) out."""

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
        self.stem = Stem(self.colour.channels_out, config)
        rates = drop_path_rates(config)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(stage, config, rate) for rate in rates[stage])) for stage in range(len(config.depths))
        )
        self.downsamplings = nn.ModuleList(Downsampling(stage, config) for stage in range(len(config.depths) - 1))
        self.head = linear(config.dims[-1], num_classes, bias=True)
        # Filters in the layout of the maps: otherwise every step converts them there and their gradients back.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        # upstream: no norm between the last stage and the head.
        return self.head(self.forward_features(x)[-1].mean((1, 2)))

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The output of every stage before halving, (batch, height, width, channels) each.

        Raises ValueError for images of the wrong shape, and where a stage would be left without a pixel.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"images must be (batch, {self.in_channels} channels, height, width), got {tuple(x.shape)}"
            )
        self.config.map_sizes(x.shape[2], x.shape[3])
        x = self.stem(self.colour(x))
        features = [self.stages[0](x)]
        for halve, stage in zip(self.downsamplings, self.stages[1:]):
            features.append(stage(halve(features[-1])))
        return features

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay must not touch although they are no vectors."""
        return {name for name, _ in self.named_parameters() if name.endswith(("A_logs", "Ds", "dt_projs_bias"))}


class ColourConversion(nn.Module):
    """Images with the channels that the variant's stem reads: grey repeated to RGB, RGB weighted to grey, or as is."""

    weights: Tensor

    def __init__(self, wanted: int | str, in_channels: int) -> None:
        super().__init__()
        self.channels_out = in_channels if isinstance(wanted, str) else wanted
        if self.channels_out != in_channels and {self.channels_out, in_channels} != {1, 3}:
            raise ValueError(
                f"input_channels={wanted} must get images of 1 or 3 channels, got in_channels={in_channels}"
            )
        self.repeats = in_channels == 1 and self.channels_out == 3
        self.weighs = in_channels == 3 and self.channels_out == 1
        self.register_buffer("weights", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.repeats:
            return x.expand(-1, 3, -1, -1)
        if self.weighs:
            return (x * self.weights.to(x.dtype)).sum(1, keepdim=True)
        return x


class Stem(nn.Module):
    """Patch embedding: images (batch, channels, height, width) to a map (batch, height, width, channels)."""

    def __init__(self, in_channels: int, config: VariantConfig) -> None:
        super().__init__()
        self.projection = convolution(in_channels, config.dims[0], config.patch_size, config.patch_size, 0)
        self.norm = nn.LayerNorm(config.dims[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.projection(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1))


def drop_path_rates(config: VariantConfig) -> list[list[float]]:
    """The drop path rate of every block, by stage: rising linearly from zero in the first block of the network."""
    rates = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist()
    return [[rates.pop(0) for _ in range(depth)] for depth in config.depths]
