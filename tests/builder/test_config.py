"""The design space: canonical values, identities that never move, one-line errors."""

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from alive import alive

from medmamba_variants.axis_table import axis_table
from medmamba_variants.config import (
    PRESETS,
    VariantConfig,
    axis_schema,
    preset,
)
from medmamba_variants.design.axes import AXES, SUGAR, parse_axis
from medmamba_variants.design.branches import branch_widths
from medmamba_variants.design.joints import FUSIONS, HALVINGS
from medmamba_variants.design.kinds import SettingError, dotted_path
from medmamba_variants.design.mixers import MIXERS
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import Recipe

GOLDEN = Path(__file__).with_name("golden_ids.json")

# What results on disk are named by. A changed line here renames published results: never edit, only add.
GOLDEN_DEFAULTS = {
    "patch_size": 4,
    "depths": [2, 2, 4, 2],
    "dims": [96, 192, 384, 768],
    "branches": [[0.5, "conv"], [0.5, "ss2d"]],
    "fusion": "shuffle",
    "shuffle_groups": 2,
    "d_state": 16,
    "expand": 2.0,
    "d_conv": 3,
    "dt_rank": "auto",
    "scan_directions": "cross4",
    "scan_window": 0,
    "window_shift": "none",
    "direction_schedule": "all",
    "scan_lines": "joined",
    "scan_atrous": 1,
    "atrous_over": "grid",
    "atrous_scans": "all",
    "atrous_weights": "shared",
    "scan_order": "fixed",
    "routing": "none",
    "routed_directions": 2,
    "token_reduction": "none",
    "scan_axes": "triplet",
    "axis_bins": 4,
    "merge": "sum",
    "direction_weights": "own",
    "inner_conv": "dw2d",
    "gate": "silu",
    "dt_min": 1e-3,
    "dt_max": 0.1,
    "direction_embedding": False,
    "selective": "all",
    "discretisation": "mamba",
    "a_init": "s4d_real",
    "dt_init": "random",
    "downsampling": "patch_merging",
    "odd_maps": "truncate",
    "pool_product": "single",
    "inverted_ratio": 4.0,
    "drop_path_rate": 0.1,
    "input_channels": "data",
    "kernel_size": 7,
    "dilation": 1,
    "layer_scale": 1e-6,
    "heads": 4,
    "ssd_state": 64,
    "attention_window": 0,
    "rope": False,
    "attention_gate": "none",
    "relative_bias": False,
    "rnn_units": 1.0,
    "rnn_sweep": "raster",
    "bidirectional": True,
    "ode_steps": 4,
    "ode_solver": "euler",
    "shift_taps": 4,
    "corners": 4,
    "dilations": 2,
    "kernels": 4,
    "combine": "product",
    "interaction_order": 3,
    "channel_mixer": "none",
    "mlp_ratio": 4.0,
    "spline_grid": 5,
    "experts": 4,
    "slots": 4,
    "attention_groups": 4,
    "attention": "none",
    "attention_place": "fusion",
    "residual": "plain",
    "residual_scale": 0.1,
    "block_norm": "layer_norm",
    "cpe": "none",
    "cascade": False,
    "branch_weights": "own",
    "shift_round": False,
    "stem": "patches",
    "position": "none",
    "final_norm": "none",
    "frequency_table": 8,
    "spectral_groups": 4,
    "wavelet_levels": 1,
    "pool_stride": 4,
    "low_band": 0.25,
}
GOLDEN_IDS = {
    "medmamba_t": "44136fa355b3",
    "medmamba_s": "c5c9218a8e28",
    "medmamba_b": "b2c882af8146",
}


def test_defaults_never_change():
    assert VariantConfig().to_dict() == GOLDEN_DEFAULTS, "pin the default of a new axis here"
    assert {name: PRESETS[name].variant_id for name in GOLDEN_IDS} == GOLDEN_IDS
    assert VariantConfig.from_dict({"split_ratio": 0.25, "d_state": 8}).variant_id == "592193b6f4fe"


def test_axes_and_fields_are_the_same_set():
    assert list(AXES) == list(VariantConfig().to_dict())
    with pytest.raises(AttributeError, match="no axis 'd_stat'"):
        VariantConfig().d_stat  # noqa: B018
    with pytest.raises(AttributeError, match="a variant never changes"):
        VariantConfig().d_state = 8


def test_config_needs_no_torch():
    code = "import sys; import medmamba_variants.config; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", AXES)
def test_probe_is_canonical_and_a_step(name):
    axis = AXES[name]
    assert parse_axis(name, axis.probe) == axis.probe
    around = alive(name)
    variant = VariantConfig.from_dict(around | {name: axis.probe})
    assert set(variant.diff()) == {*around, name}
    assert variant.variant_id != VariantConfig.from_dict(around).variant_id
    assert axis.meaning and axis.source


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("ratio", [0, 0.25, 0.5, 1.0])
def test_every_preset_takes_every_split_ratio(name, ratio):
    base = PRESETS[name]
    variant = VariantConfig.from_dict({"split_ratio": ratio}, base=name)
    assert variant.split_ratio == ratio
    assert variant.label(base) == ("baseline" if ratio == 0.5 else f"split_ratio={ratio:g}")
    assert VariantConfig.from_dict(variant.to_dict(), base=name) == variant
    assert VariantConfig.from_dict(variant.diff()) == variant
    assert json.loads(json.dumps(variant.diff())) == variant.diff()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"expand": 2}, {}),
        ({"drop_path_rate": -0.0}, {"drop_path_rate": 0}),
        ({"split_ratio": 0.9}, {"branches": [[0.1, "conv"], [0.9, "ss2d"]]}),
        ({"split_ratio": [0.25] * 4}, {"split_ratio": 0.25}),
        ({"branches": [[0.0, "conv"], [1.0, "ss2d"]]}, {"split_ratio": 1}),
        ({"scan_directions": ["columns_reverse", "rows", "rows_reverse", "columns"]}, {"scan_directions": "cross4"}),
        ({"scan_directions": "rows"}, {"scan_directions": ["rows"]}),
        ({"scan_directions": "bidirectional"}, {"scan_directions": ["rows_reverse", "rows"]}),
        (
            {"scan_directions": ["bidirectional", "cross4", "cross4", "cross4"]},
            {"scan_directions": [["rows", "rows_reverse"], "cross4", "cross4", "cross4"]},
        ),
        (
            {"scan_directions": ["hilbert", "hilbert_reverse", "hilbert_transposed_reverse", "hilbert_transposed"]},
            {"scan_directions": "hilbert4"},
        ),
        ({"scan_directions": ["columns", "rows"]}, {"scan_directions": ("rows", "columns")}),
        ({"dims": [96, 192, 384, 768]}, {}),
    ],
)
def test_equal_designs_are_one_variant(one, other):
    first, second = VariantConfig.from_dict(one), VariantConfig.from_dict(other)
    assert first == second and hash(first) == hash(second) and first.variant_id == second.variant_id


def test_a_set_named_after_its_list_had_results_keeps_their_id():
    named = VariantConfig.from_dict({"scan_directions": "bidirectional"})
    assert (named.scan_directions, named.variant_id) == (("rows", "rows_reverse"), "7ac994286ed3")


def test_what_the_base_set_on_a_dead_axis_is_forgotten():
    base = VariantConfig(d_state=8, fusion="shuffle", shuffle_groups=4)
    from_it = VariantConfig.from_dict({"split_ratio": 0}, base=base)
    assert from_it == VariantConfig.from_dict({"split_ratio": 0})
    assert from_it.label(base) == "split_ratio=0"
    # Repeating the base's value is no step.
    assert VariantConfig.from_dict({"split_ratio": 0, "d_state": 8}, base=base) == from_it
    assert set(from_it.dead_axes()) >= {"d_state", "fusion", "shuffle_groups", "drop_path_rate"}


@pytest.mark.parametrize("count", [3, 6, 14])
def test_equal_shares_of_one_operator_have_a_label(count):
    """Rounded sixths add up to a little more than one."""
    variant = VariantConfig.from_dict({"branches": [[1 / count, "ss2d"]] * count, "fusion": "concat"})
    assert variant.split_ratio is None
    assert variant.label(VariantConfig()).startswith(f"branches=[[{round(1 / count, 6):g},ss2d],")
    assert VariantConfig.from_dict(variant.diff()) == variant


def test_labels():
    base = PRESETS["nano"]
    step = VariantConfig.from_dict({"split_ratio": [0, 0.5, 1], "fusion": "concat"}, base="nano")
    assert step.label(base) == "split_ratio=[0,0.5,1] fusion=concat"
    four = VariantConfig.from_dict({"branches": [[0.25, "ss2d"]] * 4}, base="nano")
    assert four.label(base) == "branches=[[0.25,ss2d],[0.25,ss2d],[0.25,ss2d],[0.25,ss2d]]"
    assert base.label(base) == "baseline"


def test_widths_add_up_by_largest_remainder():
    third = (0.333333, 0.333333, 0.333333)
    assert branch_widths(third, 96) == (32, 32, 32)
    assert branch_widths(third, 32) == (11, 11, 10)
    assert branch_widths((0.7, 0.3), 16) == (11, 5)
    rng = random.Random(0)
    for _ in range(200):
        ratio, channels = round(rng.uniform(0, 1), 3), rng.randint(2, 200)
        conv, ss2d = branch_widths((1 - ratio, ratio), channels)
        assert conv + ss2d == channels and abs(ss2d - ratio * channels) < 1 + 1e-3


def test_map_sizes():
    assert VariantConfig().map_sizes(64, 96) == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert VariantConfig(odd_maps="pad").map_sizes(28, 44) == [(7, 11), (4, 6), (2, 3), (1, 2)]
    assert VariantConfig().map_sizes(61, 90) == [(15, 22), (7, 11), (3, 5), (1, 2)]
    with pytest.raises(ValueError, match=r"stage 3 is empty for images of 28×28.*odd_maps=pad or a smaller patch_size"):
        VariantConfig().map_sizes(28, 28)
    with pytest.raises(ValueError, match=r"stage 0 is empty.*set a smaller patch_size"):
        VariantConfig().map_sizes(3, 28)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"fusio": "concat"}, r"axis must be one of .*; got 'fusio' \(did you mean fusion\?\)"),
        ({"fusion": "concatt"}, r"fusion must be one of .*; got 'concatt' \(did you mean concat\?\)"),
        ({"fusion": 3}, "fusion must be one of .*; got 3"),
        ({"d_state": True}, "d_state must be a whole number from 1 to 256, got the boolean true"),
        ({"d_state": 16.0}, r"d_state must be a whole number.*got 16.0 \(write 16\)"),
        ({"d_state": 0}, "d_state must be a whole number from 1 to 256, got 0"),
        ({"d_state": None}, "d_state must be a whole number from 1 to 256, got nothing"),
        ({"dt_rank": "aut"}, "dt_rank must be a whole number from 1 to 1024 or auto, got the string 'aut'"),
        ({"d_conv": 4}, "d_conv must be one of 1, 3, 5, 7; got 4"),
        ({"d_conv": True}, "d_conv must be one of 1, 3, 5, 7; got the boolean true"),
        ({"drop_path_rate": "1e-1"}, r"drop_path_rate must be a number .*got the string '1e-1' \(write 0.1\)"),
        ({"drop_path_rate": float("nan")}, "drop_path_rate must be a number from 0 to 0.95, got nan"),
        ({"expand": False}, "expand must be a number from 0.25 to 8, got the boolean false"),
        ({"depths": [2, 2]}, "one entry for each stage, got 2 in depths and 4 in dims"),
        ({"depths": []}, r"depths must be a list .*got \[\]"),
        ({"dims": [96, 192, 384, "x"]}, r"dims\[3\] must be a whole number .*got the string 'x'"),
        ({"dims": [97, 192, 384, 768]}, r"dims must be divisible by shuffle_groups=2, got dims\[0\]=97"),
        ({"split_ratio": 1.5}, "split_ratio must be a number from 0 to 1, got 1.5"),
        ({"split_ratio": [0.5, 0.5, 0.5]}, r"one entry for each of 4 stages, got 3"),
        ({"split_ratio": 0.5, "branches": [[1, "conv"]]}, "split_ratio and branches set the same axis"),
        ({"split_ratio": 0.001}, r"every branch must get a channel: share 0.001 \(ss2d\) of dims\[0\]=96 is none"),
        (
            {"branches": [[0.5, "conv"]]},
            "branches shares must add up to 1, or all be 1 for .*in parallel, got 0.5",
        ),
        (
            {"branches": [[1, "conv"], [1, "ss2d"]]},
            r"fusion must be .*conv1x1.* where the branches of a stage all read every channel .*, got shuffle",
        ),
        ({"branches": [[0.5, "conv"], [0.5, "sssd"]]}, r"operator must be one of .*; got 'sssd' \(did you mean"),
        ({"branches": "conv"}, "branches must be a list of .*got the string 'conv'"),
        ({"branches": [0.5, "conv"]}, "branches must be a list of .*got 0.5"),
        ({"scan_directions": "cross5"}, r"scan_directions must be one of .*got 'cross5' \(did you mean cross4\?\)"),
        ({"scan_directions": ["rows", "rows"]}, "scan_directions must not repeat a direction"),
        ({"scan_directions": []}, "scan_directions must be a set .*got"),
        ({"scan_directions": [["rows"]]}, "scan_directions must have one entry for each of 4 stages, got 1"),
        ({"scan_directions": ["rows", ["columns"]]}, "scan_directions must be one of .*got .*columns"),
        ({"scan_directions": [{}]}, "scan_directions must be one of .*got '{}'"),
        (
            {"scan_directions": ["rows"], "merge": "mean"},
            r"merge must be sum where there is a single direction.*got merge=mean with scan_directions=\[rows\] in sta",
        ),
        (
            {"scan_directions": ["cross4", "cross4", ["rows"], "cross4"], "direction_weights": "shared"},
            r"direction_weights must be own where there is a single .*got direction_weights=shared with .* in stage 2",
        ),
        ({"fusion": "con\ncat"}, r"fusion must be one of .*; got 'con\\ncat'"),
        ({"d_state": "1\n6"}, r"d_state must be a whole number .*got the string '1\\n6'"),
        ({"expand": 10**400}, "expand must be a number from 0.25 to 8, got 10000"),
        ({"expand": -(10**400)}, "expand must be a number from 0.25 to 8, got -10000"),
        ({"split_ratio": 0, "d_state": 8}, "d_state must be left out .*branches .*hold no ss2d, .*; got d_state=8"),
        ({"split_ratio": 1, "fusion": "concat"}, "fusion must be left out .*single branch; got fusion=concat"),
        ({"fusion": "concat", "shuffle_groups": 4}, "shuffle_groups must be left out .*fusion is not shuffle"),
        (
            {"depths": [1], "dims": [32], "downsampling": "max_pool"},
            "downsampling must be left out .*depths name a single stage",
        ),
        (
            {"depths": [1, 1], "dims": [32, 64], "split_ratio": [0.5, 0], "drop_path_rate": 0.3},
            "drop_path_rate must be left out .*nothing but conv or identity after the first block",
        ),
        (
            {"fusion": "none", "split_ratio": [0.5, 0.5, 0.5, 1]},
            "fusion none .*same number of branches; got 2, 2, 2, 1",
        ),
        # Two choices that make one network, and choices under which a layer norm of one channel hides its input.
        (
            {"depths": [2], "dims": [32], "fusion": "none"},
            "fusion none must have stages .*a single one it is concat",
        ),
        (
            {"depths": [1, 1], "dims": [16, 32], "split_ratio": [0.5, 1], "shuffle_groups": 16},
            "shuffle_groups must be fewer than the channels, or the shuffle is concat, got 16 of as many",
        ),
        (
            {"dims": [2, 4, 8, 16]},
            r"ss2d must have at least two channels .*got 1, and 2 inner ones with expand=2, in stage 0",
        ),
        ({"dims": [12, 24, 48, 96], "expand": 0.25}, "ss2d must have .*got 6, and 1 inner ones with expand=0.25, in s"),
        (
            {"dims": [8, 16, 32, 64], "split_ratio": 0.875, "fusion": "none", "downsampling": "strided_conv"},
            r"fusion none must have streams of at least two .*downsampling=strided_conv.*got \[1, 7\] in stage 0",
        ),
    ],
)
def test_bad_variants_get_one_line(mapping, message):
    with pytest.raises(ValueError, match=message) as caught:
        VariantConfig.from_dict(mapping)
    assert "\n" not in str(caught.value)


def test_next_to_what_is_refused():
    """A single channel is enough for a convolution and for patch merging; a shuffle may be idle in some stages."""
    for step in (
        {"dims": [8, 16, 32, 64], "split_ratio": 0.875, "fusion": "none"},
        {"dims": [8, 16, 32, 64], "split_ratio": 0.875, "fusion": "concat", "downsampling": "max_pool"},
        {"dims": [16, 32, 64, 128], "shuffle_groups": 16},
        {"dims": [4, 8, 16, 32], "expand": 1},
    ):
        assert VariantConfig.from_dict(step).diff()


def test_constructor_checks_too():
    with pytest.raises(ValueError, match="d_state must be left out"):
        VariantConfig(branches=((1.0, "conv"),), d_state=8)
    with pytest.raises(ValueError, match="patch_size must be a whole number"):
        VariantConfig(patch_size="4")
    with pytest.raises(ValueError, match=r"preset must be one of .*\(did you mean nano\?\)"):
        preset("nana")


def test_errors_hold_their_key_path_as_data():
    for mapping, path in (
        ({"d_state": "16"}, ("d_state",)),
        ({"dims": [96, 192, 384, "x"]}, ("dims", 3)),
        ({"branches": [[0.5, "conv"], [0.5, "sssd"]]}, ("branches", 1)),
        ({"split_ratio": [0.5, 2, 0.5, 0.5]}, ("split_ratio", 1)),
        ({"split_ratio": 0, "d_state": 8}, ("d_state",)),
        ({"dims": [97, 192, 384, 768]}, ("dims",)),
        ({"split_ratio": 0.001}, ()),
    ):
        with pytest.raises(SettingError) as caught:
            VariantConfig.from_dict(mapping)
        assert caught.value.path == path
        assert str(caught.value) == f"{dotted_path(path)} {caught.value.problem}".lstrip()


def test_schema_says_what_from_dict_reads():
    schemas = {name: axis_schema(name) for name in (*AXES, *SUGAR)}
    schema = {"type": "object", "properties": schemas, "additionalProperties": False}
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for variant in PRESETS.values():
        assert validator.is_valid(variant.to_dict())
    for name, axis in (AXES | SUGAR).items():
        assert validator.is_valid({name: json.loads(json.dumps(axis.probe))})
        assert not validator.is_valid({name: {}})
        assert axis_schema(name)["description"] == axis.meaning
    assert not validator.is_valid({"fusio": "concat"})
    assert not validator.is_valid({"d_state": 0})
    assert validator.is_valid({"split_ratio": [0, 0.5, 1]})


def test_table_names_every_axis_once():
    lines = axis_table().strip().splitlines()
    assert len(lines) == 2 + len(AXES) + len(SUGAR)
    for name, line in zip((*AXES, *SUGAR), lines[2:]):
        assert line.startswith(f"| `{name}` |") and line.count("|") == lines[0].count("|")


def test_old_variants_recipes_and_cells_keep_their_ids(monkeypatch):
    """Six hundred random variants, sixty recipes and cells, as the builder named them before components."""
    golden = json.loads(GOLDEN.read_text())
    # What the ids of cells were made with; a later version of the numbers gives every cell a new one.
    monkeypatch.setattr("study.declaration.cells.NUMERICS_VERSION", 4)
    assert len(golden["variants"]) >= 500
    for base, values, variant_id, label in golden["variants"]:
        variant = VariantConfig.from_dict(values, base=base)
        assert (variant.variant_id, variant.label(PRESETS[base or "medmamba_t"])) == (variant_id, label)
        assert VariantConfig.from_dict(variant.diff()) == variant
    for values, recipe_id, row, cell_id in golden["recipes"]:
        recipe = Recipe.from_dict(values)
        variant = VariantConfig.from_dict(golden["variants"][row][1], base=golden["variants"][row][0])
        cell = Cell(variant, recipe, DataRef("a", "f" * 12, {}), row)
        assert (recipe.recipe_id, cell.cell_id) == (recipe_id, cell_id)


CROSS = ["columns", "rows", "rows_reverse", "columns_reverse"]
SCANS = [[0.5, "ss2d"], [0.5, {"ss2d": {"d_state": 4}}]]


@pytest.mark.parametrize(
    "others",
    [
        # What differs is written at a branch, whatever was written there.
        ({"branches": SCANS}, {"branches": [[0.5, {"ss2d": {"d_state": 16}}], SCANS[1]]}),
        ({"branches": SCANS}, {"d_state": 4, "branches": [[0.5, {"ss2d": {"d_state": 16}}], [0.5, "ss2d"]]}),
        # What all branches share is hoisted, and so an old variant.
        ({"branches": [[1.0, {"ss2d": {"d_state": 4}}]]}, {"split_ratio": 1, "d_state": 4}),
        ({"branches": [[0.5, "conv"], [0.5, {"ss2d": {"d_state": 16}}]]}, {}),
        # What all stages share is one value; an entry without effect says nothing.
        ({"d_state": [8, 8, 8, 8]}, {"d_state": 8}),
        ({"split_ratio": [0, 0.5, 0.5, 1], "d_state": [99, 8, 8, 8]}, {"split_ratio": [0, 0.5, 0.5, 1], "d_state": 8}),
        ({"fusion": ["concat"] * 4}, {"fusion": "concat"}),
        ({"downsampling": ["max_pool"] * 3}, {"downsampling": "max_pool"}),
        (
            {"scan_directions": ["cross4", ["rows"], "cross4", "cross4"]},
            {"scan_directions": ["cross4", ["rows"], "cross4", CROSS]},
        ),
        # A stage's own value may be written at its branches.
        (
            {"branches": [[[1, {"ss2d": {"d_state": 4}}]], [[1, "ss2d"]], [[1, "ss2d"]], [[1, "ss2d"]]]},
            {"split_ratio": 1, "d_state": [4, 16, 16, 16]},
        ),
    ],
    ids=str,
)
def test_one_network_has_one_id(others):
    first, *rest = (VariantConfig.from_dict(values) for values in others)
    for other in rest:
        assert other == first and other.variant_id == first.variant_id and hash(other) == hash(first)
    assert VariantConfig.from_dict(first.to_dict()) == VariantConfig.from_dict(first.diff()) == first
    assert pickle.loads(pickle.dumps(first)) == first
    json.dumps(first.to_dict())


def test_values_of_a_stage_and_of_a_branch_reach_their_components():
    variant = VariantConfig.from_dict(
        {"branches": SCANS, "d_state": [8, 8, 2, 8], "fusion": ["concat", "shuffle", "shuffle", "conv1x1"]}
    )
    assert [[mixer.d_state for mixer in stage.mixers] for stage in variant.structure.stages] == [
        [8, 4],
        [8, 4],
        [2, 4],
        [8, 4],
    ]
    assert [stage.fusion.word for stage in variant.structure.stages] == ["concat", "shuffle", "shuffle", "conv1x1"]
    assert variant.label(VariantConfig()) == (
        "branches=[[0.5,ss2d],[0.5,{ss2d:{d_state:4}}]] d_state=[8,8,2,8] fusion=[concat,shuffle,shuffle,conv1x1]"
    )


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"d_state": [8, 8]}, "^d_state must have one entry for each of 4 stages, got 2"),
        ({"downsampling": ["max_pool"] * 4}, "^downsampling must have one entry for each of 3 halvings, got 4"),
        ({"d_state": [8, 8, 0, 8]}, r"^d_state\[2\] must be a whole number from 1 to 256, got 0"),
        ({"d_state": []}, "^d_state must be a whole number from 1 to 256 or a list of them, one for each stage, got "),
        (
            {"branches": [[1, {"ss2d": {"d_stat": 4}}]]},
            r"^branches\[0\].ss2d.d_stat must be one of .*mean d_state",
        ),
        (
            {"branches": [[1, {"ss2d": {"d_state": 0}}]]},
            r"^branches\[0\].ss2d.d_state must be a whole .*, got 0",
        ),
        ({"branches": [[1, {"conv": {"d_state": 4}}]]}, r"^branches\[0\].conv.d_state must be one of "),
        ({"branches": [[1, {"sss2d": {}}]]}, r"^branches\[0\] operator must be one of .*did you mean ss2d"),
        ({"fusion": ["none", "none", "concat", "none"]}, "^fusion none keeps streams apart, so it must stand in every"),
        ({"fusion": ["concat"] * 4, "shuffle_groups": 4}, "shuffle_groups must be left out .*fusion is not shuffle"),
    ],
    ids=str,
)
def test_bad_values_of_stages_and_branches_get_one_line(mapping, message):
    with pytest.raises(SettingError, match=message):
        VariantConfig.from_dict(mapping)


COMPONENTS = [kind for family in (MIXERS, FUSIONS, HALVINGS) for kind in family.values()]


@pytest.mark.parametrize("kind", COMPONENTS, ids=lambda kind: kind.word)
def test_every_component_is_declared_whole(kind):
    """A sentence, a builder that is there, axes with the defaults that the component has."""
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")
    assert kind.builds.startswith("medmamba_variants.parts.") and callable(kind().builder())
    for name, declared in kind.declared().items():
        assert AXES[name].default == declared.default == getattr(kind(), name)
