"""Components know in which block they stand, and axes whether the other axes of their component let them matter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import count_cost
from medmamba_variants.design.convolutions import Depthwise
from medmamba_variants.design.mixers import MIXERS
from medmamba_variants.macs import closed_form_macs
from medmamba_variants.model import build_model
from study.strategies.proposals import next_axis


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


def directions_of_blocks(config):
    return [stage.mixers[-1].directions for blocks in config.structure.blocks for stage in blocks]


def test_directions_alternate_over_the_whole_network():
    """Block i follows direction i mod K alone, with its parameters, at a K-th of the scan's cost."""
    config = VariantConfig.from_dict({"direction_schedule": "alternate", "depths": [1, 3, 2]}, base="nano")
    published = ("rows", "columns", "rows_reverse", "columns_reverse")
    assert directions_of_blocks(config) == [(name,) for name in (*published, *published[:2])]
    model = build_model(config, num_classes=2)
    mixers = [block.branches[1].mixer for stage in model.stages for block in stage]
    assert [mixer.directions for mixer in mixers] == directions_of_blocks(config)
    assert {mixer.x_proj_weight.shape[0] for mixer in mixers} == {1}
    eight = VariantConfig.from_dict({"scan_directions": "eight", "depths": [2, 2, 4]}, base=config)
    assert {name for (name,) in directions_of_blocks(eight)} == set(eight.structure.stages[0].mixers[-1].directions)


def test_a_block_that_follows_one_direction_has_nothing_to_merge():
    with pytest.raises(
        ValueError, match=r"^merge must be left out .*: direction_schedule is alternate; got merge=mean"
    ):
        VariantConfig(direction_schedule="alternate", merge="mean")
    with pytest.raises(ValueError, match=r"^direction_schedule must be left out .*: scan_directions are a single one"):
        VariantConfig(direction_schedule="alternate", scan_directions="rows")
    # Where the base had set what no longer has an effect, it is forgotten.
    base = VariantConfig(merge="softmax", direction_weights="shared")
    config = VariantConfig.from_dict({"direction_schedule": "alternate"}, base=base)
    assert config == VariantConfig(direction_schedule="alternate")


def test_windows_move_in_every_second_block():
    config = VariantConfig.from_dict({"scan_window": 4, "window_shift": "half", "depths": [1, 3, 1]}, base="nano")
    moved = [stage.mixers[-1].partition.shifted for blocks in config.structure.blocks for stage in blocks]
    assert moved == [False, True, False, True, False]
    paths = [block.branches[1].mixer.path(5, 7) for block in build_model(config, num_classes=2).stages[1]]
    assert paths[0] == paths[2] != paths[1]


SHIFTED = {"scan_window": 4, "window_shift": "half"}


def test_an_axis_that_needs_another_is_dead_without_it():
    with pytest.raises(ValueError, match=r"^window_shift must be left out .*: scan_window .* is 0 or 1; got .*=half"):
        VariantConfig(window_shift="half")
    assert "window_shift" in VariantConfig(scan_window=1).dead_axes()
    assert "window_shift" not in VariantConfig(**SHIFTED).dead_axes()
    # The base's value is forgotten with the window.
    assert VariantConfig.from_dict({"scan_window": 0}, base=VariantConfig(**SHIFTED)) == VariantConfig()


def test_one_network_has_one_id_whatever_stands_where_it_has_no_effect():
    half = VariantConfig(scan_window=(0, 4, 4, 0), window_shift=("none", "half", "half", "none"))
    assert half.window_shift == "half"
    assert half == VariantConfig(scan_window=(0, 4, 4, 0), window_shift="half")
    assert VariantConfig.from_dict(half.to_dict()) == half == VariantConfig.from_dict(half.diff())
    branches = [[0.5, {"ss2d": {"scan_window": 4}}], [0.5, "ss2d"]]
    one = VariantConfig.from_dict({"branches": branches, "window_shift": "half"})
    other = VariantConfig.from_dict({"branches": [[0.5, {"ss2d": SHIFTED}], [0.5, "ss2d"]]})
    assert one == other and one.variant_id == other.variant_id
    assert one.structure.stages[0].mixers[1].window_shift == "none"


def test_a_branch_is_told_of_its_own_axis_without_effect():
    dead = [[0.5, "conv"], [0.5, {"ss2d": {"window_shift": "half"}}]]
    with pytest.raises(ValueError, match=r"^branches\[1\].ss2d.window_shift must be left out .* is 0 or 1"):
        VariantConfig.from_dict({"branches": dead})
    with pytest.raises(ValueError, match=r"^branches\[2\]\[1\].ss2d.window_shift must be left out"):
        VariantConfig.from_dict({"branches": [[[1, "conv"]], [[1, "conv"]], dead, [[1, "conv"]]]})
    base = VariantConfig.from_dict(
        {"branches": [[0.5, "ss2d"], [0.5, {"ss2d": {"window_shift": "half"}}]], "scan_window": 4}
    )
    assert VariantConfig.from_dict({"scan_window": 0}, base=base).branches == ((0.5, "ss2d"), (0.5, "ss2d"))


def test_a_search_waits_for_the_value_on_which_an_axis_hangs():
    axes = {"window_shift": ["none", "half"], "scan_window": [0, 4], "split_ratio": [0, 0.5]}
    study = Waiting(VariantConfig(), {name: tuple(values) for name, values in axes.items()})
    assert next_axis(study, {}) == "split_ratio"
    assert next_axis(study, {"split_ratio": "0.5"}) == "scan_window"
    assert next_axis(study, {"split_ratio": "0.5", "scan_window": "0"}) is None
    assert next_axis(study, {"split_ratio": "0.5", "scan_window": "4"}) == "window_shift"
    assert next_axis(study, {"split_ratio": "0"}) is None


@dataclass(frozen=True)
class Waiting:
    """What of a study decides which axis a trial chooses next."""

    base: VariantConfig
    axes: dict
