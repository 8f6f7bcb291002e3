"""Block of a stage: channels are divided among branches, each runs its operator, a fusion adds them to the residual."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from medmamba_variants.design.structure import Stage
from medmamba_variants.fused.joins import parted
from medmamba_variants.parts.mixers.depthwise import FilterEach
from medmamba_variants.parts.norms import exchange_norms


class Block(nn.Module):
    """One MedMamba block of a stage: x + fusion(operator_i(slice i of x)), on (batch, height, width, channels).

    Then, where the stage has a channel mixer, x + f(norm(x)). `stage` is as this block has it.
    """

    def __init__(self, stage: Stage, drop_path: float) -> None:
        super().__init__()
        self.widths = stage.widths
        self.parallel, self.cascade = stage.parallel, stage.cascade
        # Half a branch, as ASP-VMUNet rolls; back afterwards, so that the residual's channels stay in their places.
        self.roll = stage.channels // (2 * len(self.widths)) if stage.shifts else 0
        kinds = list(zip(self.widths, stage.mixers))
        distinct = list(dict.fromkeys(kinds)) if stage.shares_weights else kinds
        self.branches = nn.ModuleList(mixer.builder()(width, mixer, drop_path) for width, mixer in distinct)
        # Which of the operators each branch uses.
        self.used = [distinct.index(kind) for kind in kinds] if stage.shares_weights else list(range(len(kinds)))
        # With a single branch a shuffle or a gate would only re-parametrise it.
        if len(self.widths) > 1:
            self.fusion = stage.fusion.builder()(self.widths, stage.channels, stage.fusion)
        self.cpe = None if stage.cpe == "none" else FilterEach(stage.channels, (3, 3))
        self.place = place = stage.attention_place
        if stage.attention is not None:
            self.attention = nn.ModuleList(
                stage.attention.builder()(channels, stage.attention) for channels in stage.weighed
            )
        residual = stage.residual
        self.residual = None if residual is None else residual.builder()(stage.channels, residual)
        # Whether the fusion may add its map to the residual itself.
        self.plain = stage.residual is None and place != "fusion" and not self.roll and len(self.widths) > 1
        self.mixes_channels = stage.channel_mixer is not None
        if stage.channel_mixer is not None:
            self.channel_cpe = FilterEach(stage.channels, (3, 3)) if stage.cpe == "both" else None
            self.channel_norm = nn.LayerNorm(stage.channels)
            self.channel_mixer = stage.channel_mixer.builder()(stage.channels, stage.channel_mixer)
            self.drop_path = DropPath(drop_path)
            self.channel_residual = None if residual is None else residual.builder()(stage.channels, residual)
        exchange_norms(self, stage.norm)

    def forward(self, x: Tensor) -> Tensor:
        if self.cpe is not None:
            x = x + self.cpe(x)
        if self.plain:
            x, *slices = [x] * (1 + len(self.widths)) if self.parallel else parted(x, self.widths)
            x = self.fusion(x, self._outputs(slices))
        else:
            x = _add(self.residual, x, self._mixed(x))
        if self.mixes_channels:
            if self.channel_cpe is not None:
                x = x + self.channel_cpe(x)
            x = _add(self.channel_residual, x, self.drop_path(self.channel_mixer(self.channel_norm(x))))
        return self.attention[0](x) if self.place == "stage" else x

    def _mixed(self, x: Tensor) -> Tensor:
        """What token mixing adds to the map."""
        rolled = x.roll(-self.roll, -1) if self.roll else x
        outputs = self._outputs([rolled] * len(self.widths) if self.parallel else rolled.split(self.widths, dim=-1))
        mixed: Tensor = self.fusion.join(outputs) if len(outputs) > 1 else outputs[0]
        if self.roll:
            mixed = mixed.roll(self.roll, -1)
        return self.attention[0](mixed) if self.place == "fusion" else mixed

    def _outputs(self, slices: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of the branches of their maps, (batch, height, width, channels of the branch) each."""
        if self.cascade and len(slices) > 1:
            outputs: list[Tensor] = []
            for used, part in zip(self.used, slices):
                outputs.append(self.branches[used](part + outputs[-1] if outputs else part))
        elif len(self.branches) == 1 and len(slices) > 1:
            # One operator for all branches: their maps are images of one batch.
            joined = self.branches[0](torch.cat(list(slices)))
            outputs = list(joined.chunk(len(slices)))
        else:
            outputs = [self.branches[used](part) for used, part in zip(self.used, slices)]
        if self.place == "branches":
            outputs = [weigh(output) for weigh, output in zip(self.attention, outputs)]
        return outputs


def _add(residual: nn.Module | None, x: Tensor, mixed: Tensor) -> Tensor:
    return x + mixed if residual is None else residual(x, mixed)
