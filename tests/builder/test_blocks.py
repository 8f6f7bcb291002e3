"""Components know in which block they stand, and axes whether the other axes of their component let them matter."""

from __future__ import annotations

from dataclasses import dataclass, replace

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import count_cost
from medmamba_variants.design.convolutions import Depthwise
from medmamba_variants.design.mixers import MIXERS
from medmamba_variants.macs import closed_form_macs
from medmamba_variants.model import build_model


@dataclass(frozen=True)
class Growing(Depthwise):
    """A depth-wise convolution that is wider in every second block."""

    def in_block(self, index):
        return replace(self, kernel_size=self.kernel_size + 2) if index % 2 else self


def test_components_know_their_block(monkeypatch):
    """Counted from the stem through all stages, in the network as in its cost."""
    monkeypatch.setitem(MIXERS, "depthwise", Growing)
    config = VariantConfig(depths=(1, 3, 1), dims=(8, 12, 16), branches=((0.5, "conv"), (0.5, "depthwise")))
    assert config.structure.stages[0].mixers[1].kernel_size == 7
    sizes = [[stage.mixers[1].kernel_size for stage in blocks] for blocks in config.structure.blocks]
    assert sizes == [[7], [9, 7, 9], [7]]
    names = dict(build_model(config, num_classes=2).named_parameters())
    assert [names[f"stages.1.{block}.branches.1.filters.weight"].shape[-1] for block in range(3)] == [9, 7, 9]
    asked = {"image_size": (32, 48), "num_classes": 2}
    assert closed_form_macs(config, **asked) == count_cost(config, **asked).macs
