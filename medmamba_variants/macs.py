"""Multiply-adds of a variant in closed form, added up over its components.

They equal the counts from tracing the network (`medmamba_variants.cost`) exactly, but need no torch.
"""

from __future__ import annotations

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.joints import Apart
from medmamba_variants.design.structure import Stage


def closed_form_macs(
    config: VariantConfig, *, image_size: int | tuple[int, int], num_classes: int, in_channels: int = 3
) -> int:
    """Multiply-adds for one image of `image_size` (side, or height and width) pixels.

    Raises ValueError where a stage would be left without a pixel.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    sizes = config.map_sizes(height, width)
    stages, halvings = config.structure.stages, config.structure.halvings
    read = in_channels if isinstance(config.input_channels, str) else config.input_channels
    total = config.structure.stem.macs(read, stages[0].channels, config.patch_size, *sizes[0])
    for blocks, size in zip(config.structure.blocks, sizes, strict=True):
        total += sum(_block(stage, *size) for stage in blocks)
    for halving, before, after, size in zip(halvings, stages, stages[1:], sizes[1:]):
        apart = isinstance(before.fusion, Apart) and len(before.mixers) > 1
        pairs = zip(before.widths, after.widths) if apart else [(before.channels, after.channels)]
        total += sum(halving.macs(channels_in, channels_out, *size) for channels_in, channels_out in pairs)
    return total + stages[-1].channels * num_classes


def _block(stage: Stage, height: int, width: int) -> int:
    """Multiply-adds of one block, for one image's map."""
    size = (height, width)
    total = sum(mixer.macs(part, *size) for mixer, part in zip(stage.mixers, stage.widths, strict=True))
    if len(stage.mixers) > 1:
        total += stage.fusion.macs(stage.widths, stage.channels, *size)
    if stage.channel_mixer is not None:
        total += stage.channel_mixer.macs(stage.channels, *size)
    if stage.attention is not None:
        total += sum(stage.attention.macs(channels, *size) for channels in stage.weighed)
    return total + {"none": 0, "mixer": 1, "both": 2}[stage.cpe] * 9 * stage.channels * height * width
