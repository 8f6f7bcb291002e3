"""Study files: what they come to, every error with its whole text, overrides, hashes, and the files shipped."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from analysis.metrics import METRICS
from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.design.axes import AXES, FUSIONS, MIXER_AXES, SUGAR, or_
from study.data.phantoms.sets import PHANTOMS, parse_name
from study.data.readers import FILE_KINDS
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import Recipe
from study.file.keys import SOURCE, STRATEGY, STUDY
from study.file.keys import study_schema as json_schema
from study.file.reading import Range, load_study
from study.planning.plan import make_plan
from study.planning.reach import reaches
from study.store.ledger import Ledger
from study.strategies.samplers import SAMPLERS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "search_spaces").rglob("*.yaml"))
# A search, and studies of a single variant.
WITHOUT_CONTRASTS = ("joint_search", "pilot_budget", "published_figures")

GRID = """
question: How much
  scan?
base: nano
axes:
  split_ratio: [0, .25, 0.5]
seeds: [0, 1]
datasets: [phantom_ct, phantom_mri]
recipe: {epochs: 3}
contrasts:
  - {name: none, baseline: {split_ratio: .5}, against: {split_ratio: 0}, metric: macro_f1, margin: .02, family: f}
"""
SEARCH = """
question: Which?
base: nano
axes:
  split_ratio: {low: 0, high: 1, step: .25}
  d_state: {low: 2, high: 16, log: true}
  fusion: [shuffle, concat]
strategy: {name: tpe, trials: 5, objectives: [macro_f1]}
seeds: [0]
datasets: [phantom_ct]
"""
METRIC_NAMES = ", ".join(METRICS)
POINT_NAMES = ", ".join([*AXES, *SUGAR])
FUSION_NAMES = ", ".join(FUSIONS)
SCANS = or_(MIXER_AXES["d_state"])


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a study file into the current folder, lines replaced, and returns its relative path."""
    monkeypatch.chdir(tmp_path)

    def write(text=GRID, **lines):
        for key, line in lines.items():
            block = _block(text, key)
            text = text.replace(block, f"{line}\n") if block else f"{text}{line}\n"
        Path("x.yaml").write_text(text)
        return Path("x.yaml")

    return write


def _block(text, key):
    """The lines of a top-level key; nothing where it is missing."""
    lines = text.splitlines(keepends=True)
    start = next((index for index, line in enumerate(lines) if line.startswith(f"{key}:")), len(lines))
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith((" ", "-"))), len(lines))
    return "".join(lines[start:end])


def refs(study):
    return {name: DataRef(name, f"content of {name}", {}) for name in study.datasets}


def message(path, **options):
    with pytest.raises(ValueError) as error:
        load_study(path, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


# What a good file comes to


def test_a_grid_is_read_whole(write):
    study = load_study(write())
    assert (study.name, study.question, study.base_name) == ("x", "How much scan?", "nano")
    assert study.path == Path("x.yaml").absolute() and study.text == GRID
    assert study.is_grid and study.base == PRESETS["nano"]
    assert [label for label, _ in study.variants()] == ["split_ratio=0", "split_ratio=0.25", "baseline"]
    assert [variant.split_ratio for _, variant in study.variants()] == [0, 0.25, 0.5]
    assert study.axes == {"split_ratio": (0.0, 0.25, 0.5)}
    assert (study.seeds, study.datasets) == ((0, 1), ("phantom_ct", "phantom_mri"))
    assert study.recipe == Recipe(epochs=3)
    assert (study.alpha, study.correction) == (0.05, "holm")
    contrast = study.contrasts[0]
    assert contrast.baseline == study.base and contrast.against.split_ratio == 0
    assert (contrast.baseline_label, contrast.against_label) == ("baseline", "split_ratio=0")
    assert (contrast.metric, contrast.margin, contrast.family, contrast.kind) == ("macro_f1", 0.02, "f", "confirmatory")


def test_a_study_is_frozen(write):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_study(write()).seeds = ()


def test_axes_multiply_in_the_files_order(write):
    study = load_study(
        write(axes="axes: {split_ratio: [.25, .5], fusion: [shuffle, concat]}", contrasts="contrasts: []")
    )
    assert [label for label, _ in study.variants()] == [
        "split_ratio=0.25",
        "split_ratio=0.25 fusion=concat",
        "baseline",
        "fusion=concat",
    ]


def test_what_variant_fixes_is_part_of_the_base(write):
    study = load_study(write(variant="variant: {d_state: 4, fusion: concat}"))
    assert study.base == VariantConfig.from_dict({"d_state": 4, "fusion": "concat"}, base="nano")
    assert [variant.d_state for _, variant in study.variants()] == [16, 4, 4]  # the default where no scan is left
    assert study.variants()[2][0] == "baseline"


def test_named_variants_stand_in_place_of_axes(write):
    named = "variants:\n  plain: {}\n  all conv: {split_ratio: 0}\n  small: {d_state: 2, fusion: concat}"
    contrast = "contrasts: [{name: c, baseline: plain, against: small, metric: accuracy, margin: .01}]"
    text = GRID.replace(_block(GRID, "axes"), named + "\n")
    study = load_study(write(text, contrasts=contrast))
    assert [label for label, _ in study.variants()] == ["plain", "all conv", "small"]
    assert study.contrasts[0].against.d_state == 2
    assert (study.contrasts[0].against_label, study.contrasts[0].family) == ("small", "primary")
    assert study.label(study.base) == "plain"


def test_a_search_keeps_ranges_and_lists(write):
    study = load_study(write(SEARCH))
    assert not study.is_grid and study.variants() == []
    assert study.axes == {
        "split_ratio": Range(0.0, 1.0, step=0.25),
        "d_state": Range(2, 16, log=True),
        "fusion": ("shuffle", "concat"),
    }
    assert isinstance(study.axes["split_ratio"].low, float) and isinstance(study.axes["d_state"].low, int)
    assert (study.strategy.name, study.strategy.trials, study.strategy.seed) == ("tpe", 5, 0)
    assert study.strategy.objectives == ("macro_f1",) and study.strategy.max_macs is None


def test_cells_go_through_all_variants_before_the_next_data_set_or_seed(write):
    study = load_study(write())
    cells = list(study.cells(refs(study)))
    order = [(cell.seed, cell.data.name, study.label(cell.variant)) for cell in cells]
    labels = ["split_ratio=0", "split_ratio=0.25", "baseline"]
    assert order == [(s, d, v) for s in (0, 1) for d in ("phantom_ct", "phantom_mri") for v in labels]
    assert len({cell.cell_id for cell in cells}) == 12
    assert [c.cell_id for c in study.cells_of(study.base, refs(study))] == [
        cell.cell_id for cell in cells if cell.variant == study.base
    ]
    assert pickle.loads(pickle.dumps(cells[0])) == cells[0]


def test_the_plan_counts_what_the_ledger_holds(write, tmp_path):
    study, ledger = load_study(write()), Ledger(tmp_path / "ledger")
    cells = list(study.cells(refs(study)))
    assert make_plan(study, refs(study), ledger).done() == []
    ledger.append({"cell_id": cells[3].cell_id, "status": "done"})
    ledger.append({"cell_id": cells[4].cell_id, "status": "failed"})
    ledger.append({"cell_id": "other", "status": "done"})
    plan = make_plan(study, refs(study), ledger)
    assert list(plan.cells.values()) == cells and list(plan.cells) == [cell.cell_id for cell in cells]
    assert plan.total == 12 and plan.failed == {cells[4].cell_id}
    assert [record["cell_id"] for record in plan.done()] == [cells[3].cell_id]
    assert plan.left() == [*cells[:3], *cells[4:]]
    searched = load_study(write(SEARCH))
    search = make_plan(searched, refs(searched), ledger)
    assert (search.total, search.cells, search.failed, search.left(), search.done()) == (5, {}, set(), [], [])
    assert set(search.finished) == {cells[3].cell_id, "other"}


def test_sources_follow_names_and_root(write, tmp_path):
    (tmp_path / "own.npz").touch()
    study = load_study(write(), datasets="phantom_ct,own", data_root=".")
    assert study.sources() == {
        "phantom_ct": {"kind": "phantom"},
        "own": {"kind": "npz", "root": str(tmp_path)},
    }
    study = load_study(write(source="source: {kind: medmnist, size: 64, root: sets}"), datasets=["pathmnist"])
    assert study.sources() == {
        "pathmnist": {"kind": "medmnist", "root": str(tmp_path / "sets"), "size": 64, "download": False}
    }


IDLE = [
    ("phantom_ct", "{root: sets}", "root", "'{root}' (phantom_ct: phantom)"),
    ("phantom_ct", "{kind: medmnist, size: 64}", "kind", "'medmnist' (phantom_ct: phantom)"),
    ("phantom_ct,own", "{root: sets, image_size: 28}", "image_size", "28 (phantom_ct: phantom, own: npz)"),
    ("own,photos", "{root: sets, download: false}", "download", "False (own: npz, photos: folder)"),
]


@pytest.mark.parametrize(("datasets", "source", "key", "found"), IDLE)
def test_a_source_setting_that_no_data_set_uses_is_refused(write, tmp_path, datasets, source, key, found):
    (tmp_path / "sets" / "photos").mkdir(parents=True)
    (tmp_path / "sets" / "own.npz").touch()
    study = load_study(write(source=f"source: {source}"), datasets=datasets)
    with pytest.raises(ValueError) as error:
        study.check_source()
    rule = f"{tmp_path}/x.yaml: source.{key} must be left out where no data set uses it"
    assert str(error.value) == f"{rule}, got {found.format(root=tmp_path / 'sets')}"


def test_a_source_setting_that_some_data_sets_use_is_taken(write, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "own.npz").touch()
    study = load_study(write(source="source: {root: ., image_size: 28}"), datasets="phantom_ct,own,photos")
    study.check_source()
    assert study.sources()["photos"] == {"kind": "folder", "root": str(tmp_path), "image_size": 28}


# Errors: file or option, key path, what must hold, what came

YAML_BOOLEAN = " (YAML reads yes, no, on and off as true and false: put a text in quotes)"
DEAD = "must be left out where it has no effect: branches (or split_ratio) "
BAD = {
    # unknown keys
    "strategi: {name: grid}": "strategi must be one of "
    f"{', '.join(STUDY.settings)}; got 'strategi' (did you mean strategy?)",
    "recipe: {learning_rat: 0.1}": "recipe.learning_rat must be one of "
    f"{', '.join(f.name for f in dataclasses.fields(Recipe))}; got 'learning_rat' (did you mean learning_rate?)",
    "axes: {split_ration: [0]}": f"axes.split_ration must be one of {POINT_NAMES}; got 'split_ration' "
    "(did you mean split_ratio?)",
    "variant: {fussion: concat}": f"variant.fussion must be one of {POINT_NAMES}; got 'fussion' (did you mean fusion?)",
    "strategy: {nam: grid}": f"strategy.nam must be one of {', '.join(STRATEGY)}; got 'nam' (did you mean name?)",
    "source: {kin: npz}": f"source.kin must be one of {', '.join(SOURCE)}; got 'kin' (did you mean kind?)",
    "recipe: {epochs: '1'}": "recipe.epochs must be a whole number from 1 to 100000, got the string '1' (write 1)",
    "recipe: {epochs: 'nan'}": "recipe.epochs must be a whole number from 1 to 100000, got the string 'nan'",
    "recipe: {image_size: 28, max_image_size: 28}": "recipe.max_image_size must be left out where image_size fixes the "
    "size, got 28 beside 28",
    "source: {root: ~nobody.of.this.name/data}": "source.root must be a folder, got '~nobody.of.this.name/data' "
    "(Could not determine home directory.)",
    "---\nquestion: Twice?": "must be YAML, got expected a single document in the stream, but found another document "
    "on line 12, column 1",
    "on: 3": f"must have texts as keys, got the boolean true{YAML_BOOLEAN}",
    "recipe: {3: 4}": "recipe must have texts as keys, got 3",
    # missing keys
    "strategy: {seed: 1}": "strategy.name must be given, got nothing "
    "(what to run next: all of the grid, a race between its variants, or proposals by Optuna)",
    # wrong types
    "recipe: {learning_rate: 1e-4}": "recipe.learning_rate must be a number from 1e-08 to 10, got the string '1e-4' "
    "(write 1.0e-4)",
    "recipe: {epochs: five}": "recipe.epochs must be a whole number from 1 to 100000, got the string 'five'",
    "recipe: {epochs: 2.5}": "recipe.epochs must be a whole number from 1 to 100000, got 2.5",
    "recipe: {class_weights: 1}": "recipe.class_weights must be true or false, got 1",
    "recipe: {flip: off}": f"recipe.flip must be one of none, horizontal, both; got the boolean false{YAML_BOOLEAN}",
    "recipe: []": "recipe must be a mapping, got []",
    "recipe:": "recipe must be a mapping, got nothing",
    "question: 3": "question must be a text, got 3",
    "question: yes": f"question must be a text, got the boolean true{YAML_BOOLEAN}",
    "question: ''": "question must be a text, got the string ''",
    "base: 3": f"base must be one of {', '.join(PRESETS)}; got 3",
    "base: nanoo": f"base must be one of {', '.join(PRESETS)}; got 'nanoo' (did you mean nano?)",
    "seeds: 5": "seeds must be a list, got 5",
    "seeds: [0, 1.0]": "seeds[1] must be a whole number from 0 to 4294967295, got 1.0 (write 1)",
    "seeds: [0, true]": f"seeds[1] must be a whole number from 0 to 4294967295, got the boolean true{YAML_BOOLEAN}",
    "seeds: [-1]": "seeds[0] must be a whole number from 0 to 4294967295, got -1",
    "datasets: [3]": "datasets[0] must be a text, got 3",
    "datasets: [no]": f"datasets[0] must be a text, got the boolean false{YAML_BOOLEAN}",
    "axes: [split_ratio]": "axes must be a mapping, got ['split_ratio']",
    "axes: {fusion: concat}": "axes.fusion must be a list of values, got the string 'concat'",
    "axes: {fusion: [off]}": f"axes.fusion[0] must be one of {FUSION_NAMES}; got the boolean false{YAML_BOOLEAN}",
    "axes: {expand: [2, 1e0]}": "axes.expand[1] must be a number from 0.25 to 8, got the string '1e0' (write 1)",
    "axes: {dims: [[32, 64, x]]}": "axes.dims[0][2] must be a whole number from 2 to 4096, got the string 'x'",
    "variant: 3": "variant must be a mapping, got 3",
    "contrasts: {a: 1}": "contrasts must be a list, got the mapping {'a': 1}",
    "contrasts: [3]": "contrasts[0] must be a mapping, got 3",
    "alpha: 5e-2": "alpha must be a number between 0 and 0.5, got the string '5e-2' (write 0.05)",
    "source: {download: 1}": "source.download must be true or false, got 1",
    # bounds
    "recipe: {epochs: 0}": "recipe.epochs must be a whole number from 1 to 100000, got 0",
    "alpha: 0": "alpha must be a number between 0 and 0.5, got 0",
    "alpha: .nan": "alpha must be a number between 0 and 0.5, got nan",
    "correction: bonferroni": "correction must be one of holm, bh, none; got 'bonferroni'",
    "axes: {split_ratio: [0, 2]}": "axes.split_ratio[1] must be a number from 0 to 1, got 2",
    "axes: {d_state: [0]}": "axes.d_state[0] must be a whole number from 1 to 256, got 0",
    "axes: {fusion: [shufle]}": f"axes.fusion[0] must be one of {FUSION_NAMES}; got 'shufle' (did you mean shuffle?)",
    "variant: {d_state: 999}": "variant.d_state must be a whole number from 1 to 256, got 999",
    # YAML's own surprises
    "recipe: {epochs: 010}": "line 9 must hold a plain decimal number, got 010 (which YAML reads as 8)",
    "recipe: {epochs: 1:30}": "line 9 must hold a plain decimal number, got 1:30 (which YAML reads as 90)",
    "recipe: {epochs: 3, epochs: 4}": "epochs must stand once in its mapping, got it on lines 9 and 9",
    "recipe: {epochs: [}": "must be YAML, got expected the node content, but found '}' on line 9, column 19",
    "recipe: !!python/object:os.system {}": "must be YAML, got could not determine a constructor for the tag "
    "'tag:yaml.org,2002:python/object:os.system' on line 9, column 9",
    "axes: {fusion: &all [*all]}": "must be a finite text, got an alias inside its own anchor",
    # dead axes, contradictions
    "axes: {split_ratio: [0, .5], fusion: [shuffle, concat]}": f"axes.fusion {DEAD}leave every stage a single branch; "
    "got fusion=concat (at split_ratio: 0.0, fusion: concat)",
    "variant: {split_ratio: 0, d_state: 4}": f"variant.d_state {DEAD}hold no {SCANS}; got d_state=4",
    "axes: {shuffle_groups: [2, 4], fusion: [shuffle, concat]}": "axes.shuffle_groups must be left out where it has no "
    "effect: fusion is not shuffle; got shuffle_groups=4 (at shuffle_groups: 4, fusion: concat)",
    "axes: {depths: [[1, 2, 1], [1, 1]]}": "axes.depths and dims must have one entry for each stage, "
    "got 2 in depths and 3 in dims",
    "variant: {split_ratio: .25}": "axes.split_ratio must not be set under variant too, got 0.25 there",
    "axes: {split_ratio: [0], branches: [[[1, conv]]]}": "axes.split_ratio must not stand beside branches, got both",
    # empty studies
    "axes: {}": "axes must name at least one axis (or variants in its place), got nothing: the study would be empty",
    "axes: {fusion: []}": "axes.fusion must list at least one value, got []: the study would be empty",
    "seeds: []": "seeds must list at least one, got []: the study would be empty",
    "datasets: []": "datasets must list at least one, got []: the study would be empty",
    # repeats
    "seeds: [0, 1, 0]": "seeds must not repeat a value, got 0 twice",
    "datasets: [a, a]": "datasets must not repeat a value, got the string 'a' twice",
    "axes: {split_ratio: [0, .5, 0.0]}": "axes.split_ratio must not repeat a value, got 0.0 twice",
    "axes: {scan_directions: [cross4, [rows, columns, rows_reverse, columns_reverse]]}": "axes.scan_directions must "
    "not repeat a value, got ['rows', 'columns', 'rows_reverse', 'columns_reverse'] twice",
    "axes: {split_ratio: [0.5, [0.5, 0.5, 0.5]]}": "axes must give different variants, got one variant twice: "
    "{split_ratio: 0.5} and {split_ratio: [0.5, 0.5, 0.5]}",
    # strategies
    "strategy: {name: gird}": f"strategy.name must be one of grid, racing, {', '.join(SAMPLERS)}; "
    "got 'gird' (did you mean grid?)",
    "strategy: {name: grid, trials: 3}": "strategy.trials must be left out where strategy.name is grid, got 3",
    "strategy: {name: tpe, objectives: [macro_f1]}": "strategy.trials must be given where strategy.name is tpe, "
    "got nothing",
    "strategy: {name: tpe, trials: 3, objectives: []}": "strategy.objectives must be given where strategy.name is tpe, "
    "got []",
    "strategy: {name: tpe, trials: 3, objectives: [f1]}": "strategy.objectives[0] must be one of "
    f"{METRIC_NAMES}, macs; got 'f1'",
    "strategy: {name: tpe, trials: 3, objectives: [macs, macs]}": "strategy.objectives must not repeat a value, "
    "got the string 'macs' twice",
    "strategy: {name: tpe, trials: 3, population: 4, objectives: [macs]}": "strategy.population must be left out where "
    "strategy.name is tpe, got 4",
    "strategy: {name: tpe, trials: 3, max_macs: 5e6, objectives: [macs]}": "strategy.max_macs must be a number "
    "above 0, got the string '5e6' (write 5.0e+6)",
    "strategy: {name: tpe, trials: 0, objectives: [macs]}": "strategy.trials must be a whole number from 1 to 1000000, "
    "got 0",
    "strategy: {name: tpe, trials: 3, objectives: [macro_f1]}": "contrasts must be left out where "
    "strategy.name is tpe, got 1: no variant of a search is known before it runs",
    "axes: {split_ratio: {low: 0, high: 1}}": "axes.split_ratio must be a list of values in a grid, "
    "got the mapping {'low': 0, 'high': 1}",
    # sources
    "source: {kind: phantom}": f"source.kind must be one of {', '.join(FILE_KINDS)}; got 'phantom'",
    "source: {kind: npz}": "source.root must be given where source.kind is npz, got nothing",
    "source: {kind: npz, root: a, size: 28}": "source.size must be left out where source.kind is npz, got 28",
    "source: {kind: medmnist, image_size: 28}": "source.image_size must be left out where source.kind is medmnist, "
    "got 28",
    "variants: {a: {}}": "variants must be left out where axes are given, got both",
}
CONTRAST = {"name": "a", "baseline": {}, "against": {"split_ratio": 0}, "metric": "macro_f1", "margin": 0.1}
LABELS = "split_ratio=0, split_ratio=0.25, baseline"
BAD_CONTRASTS = [
    ({"name": None}, "name must be a text, got nothing"),
    ({"metric": "macro_f2"}, f"metric must be one of {METRIC_NAMES}; got 'macro_f2' (did you mean macro_f1?)"),
    ({"margin": 0}, "margin must be a number between 0 and 1, got 0"),
    ({"margin": -0.01}, "margin must be a number between 0 and 1, got -0.01"),
    ({"margin": "1e-2"}, "margin must be a number between 0 and 1, got the string '1e-2' (write 0.01)"),
    ({"kind": "primary"}, "kind must be one of confirmatory, exploratory; got 'primary'"),
    (
        {"baseline": {"split_ratio": 0.3}},
        f"baseline must be a variant of the study ({LABELS}), got {{'split_ratio': 0.3}}",
    ),
    (
        {"against": {"fusion": "concat"}},
        f"against must be a variant of the study ({LABELS}), got {{'fusion': 'concat'}}",
    ),
    ({"against": {"split_ratio": 7}}, "against.split_ratio must be a number from 0 to 1, got 7"),
    (
        {"against": {"split": 0}},
        f"against.split must be one of {POINT_NAMES}; got 'split' (did you mean split_ratio?)",
    ),
    ({"against": {"split_ratio": 0.5}}, "against must differ from baseline, got {'split_ratio': 0.5} twice"),
    ({"baseline": "plain"}, "baseline must be a mapping of axes to values, got 'plain'"),
    ({"against": 3}, "against must be a mapping, got 3"),
    (
        {"winner": 1},
        "winner must be one of name, baseline, against, metric, margin, family, kind, level; got 'winner'",
    ),
]
BAD_PAIRS = [
    ({}, "contrasts[1].name must be used once, got 'a' twice"),
    (
        {"name": "b"},
        "contrasts[1] must compare what no other contrast does, got macro_f1 of the variants of 'a'",
    ),
    (
        {"name": "b", "baseline": {"split_ratio": 0}, "against": {}, "margin": 0.2},
        "contrasts[1] must compare what no other contrast does, got macro_f1 of the variants of 'a'",
    ),
]


@pytest.mark.parametrize(("line", "expected"), BAD.items())
def test_a_bad_file_gets_one_line(write, line, expected):
    key = line.partition(":")[0]
    assert message(write(**{key: line})) == f"x.yaml: {expected}"


@pytest.mark.parametrize(("changed", "expected"), BAD_CONTRASTS)
def test_a_bad_contrast_gets_one_line(write, changed, expected):
    line = yaml.safe_dump({"contrasts": [{**CONTRAST, **changed}]}).rstrip()
    assert message(write(contrasts=line)) == f"x.yaml: contrasts[0].{expected}"


@pytest.mark.parametrize(("changed", "expected"), BAD_PAIRS)
def test_contrasts_must_not_repeat(write, changed, expected):
    line = yaml.safe_dump({"contrasts": [CONTRAST, {**CONTRAST, **changed}]}, sort_keys=False).rstrip()
    assert message(write(contrasts=line)) == f"x.yaml: {expected}"


@pytest.mark.parametrize("key", CONTRAST)
def test_what_a_contrast_must_say(write, key):
    line = yaml.safe_dump({"contrasts": [{k: v for k, v in CONTRAST.items() if k != key}]}).rstrip()
    assert message(write(contrasts=line)).startswith(f"x.yaml: contrasts[0].{key} must be given, got nothing (")


@pytest.mark.parametrize("key", ["question", "base", "seeds", "datasets"])
def test_what_must_be_given(write, key):
    text = write(GRID.replace(_block(GRID, key), ""))
    assert message(text) == f"x.yaml: {key} must be given, got nothing ({STUDY.settings[key].meaning})"


def test_a_study_without_axes_or_variants_is_empty(write):
    text = write(GRID.replace(_block(GRID, "axes"), ""))
    assert message(text).startswith("x.yaml: axes must name at least one axis (or variants in its place), got nothing")


RANGES = {
    "split_ratio: {low: 0}": "axes.split_ratio.high must be given, got nothing",
    "split_ratio: {low: 0, high: 1, stp: 1}": "axes.split_ratio.stp must be one of low, high, log, step; got 'stp' "
    "(did you mean step?)",
    "split_ratio: {low: 0, high: 2}": "axes.split_ratio.high must be a number from 0 to 1, got 2",
    "split_ratio: {low: [0, 1], high: 1}": "axes.split_ratio.low must be a number, got [0.0, 1.0]",
    "split_ratio: {low: 1, high: 0}": "axes.split_ratio.high must be above low (1), got 0",
    "split_ratio: {low: 0, high: 1, log: true}": "axes.split_ratio.low must be above 0 on a logarithmic scale, got 0",
    "split_ratio: {low: .1, high: 1, log: 1}": "axes.split_ratio.log must be true or false, got 1",
    "split_ratio: {low: .1, high: 1, log: true, step: .1}": "axes.split_ratio.step must be left out on a logarithmic "
    "scale, got 0.1",
    "split_ratio: {low: 0, high: 1, step: .3}": "axes.split_ratio.step must lead from 0 to 1 in whole steps, got 0.3",
    "split_ratio: {low: 0, high: 1, step: 2}": "axes.split_ratio.step must lead from 0 to 1 in whole steps, got 2",
    "split_ratio: {low: 0, high: 1, step: 1.0e-320}": "axes.split_ratio.step must lead from 0 to 1 in whole steps, "
    "got 1e-320",
    "split_ratio: {low: 0, high: 1, step: 0}": "axes.split_ratio.step must be a number above 0, got 0",
    "d_state: {low: 2, high: 8, step: 1.5}": "axes.d_state.step must be a whole number above 0, got 1.5",
    "d_state: {low: 2.0, high: 8}": "axes.d_state.low must be a whole number from 1 to 256, got 2.0 (write 2)",
    "dt_rank: {low: auto, high: 8}": "axes.dt_rank.low must be a number, got the string 'auto'",
    "fusion: {low: 1, high: 2}": "axes.fusion must be a list of values for this axis, got the mapping "
    "{'low': 1, 'high': 2}",
    "fusion: concat": "axes.fusion must be a list of values or a range {low, high}, got the string 'concat'",
}


@pytest.mark.parametrize(("axis", "expected"), RANGES.items())
def test_a_bad_range_gets_one_line(write, axis, expected):
    assert message(write(SEARCH, axes=f"axes:\n  {axis}")) == f"x.yaml: {expected}"


NAMED = {
    "{}": "variants must name at least one variant, got none: the study would be empty",
    "{a: 3}": "variants.a must be a mapping of axes to values, got 3",
    "{a: {fussion: 3}}": f"variants.a.fussion must be one of {POINT_NAMES}; got 'fussion' (did you mean fusion?)",
    "{a: {}, b: {split_ratio: .5}}": "variants.b must differ from every other variant, got the same as a",
    "{a: {fusion: 3}}": f"variants.a.fusion must be one of {FUSION_NAMES}; got 3",
    "{a: {split_ratio: 0, d_state: 2}}": f"variants.a.d_state {DEAD}hold no {SCANS}; got d_state=2",
    "{3: {}}": "variants must have texts as keys, got 3",
    "{' ': {}}": "variants must have names of one line as keys, got ' '",
    '{"a\\nb": {}}': "variants must have names of one line as keys, got 'a\\nb'",
    "{a: {}, a: {}}": "a must stand once in its mapping, got it on lines 10 and 10",
}


@pytest.mark.parametrize(("variants", "expected"), NAMED.items())
def test_bad_named_variants_get_one_line(write, variants, expected):
    text = GRID.replace(_block(GRID, "axes"), "")
    assert message(write(text, variants=f"variants: {variants}")) == f"x.yaml: {expected}"


def test_named_variants_belong_to_grids(write):
    text = SEARCH.replace(_block(SEARCH, "axes"), "variants: {a: {}}\n")
    assert message(write(text)) == (
        "x.yaml: variants must be left out where strategy.name is tpe, got a list of variants"
    )


def test_no_file_no_mapping_no_text(write, tmp_path):
    write()
    assert message("y.yaml") == "y.yaml: must be a study file, got nothing there; did you mean x.yaml?"
    assert message("none/y.yaml") == "none/y.yaml: must be a study file, got nothing there"
    Path("inside").mkdir()
    Path("inside/z.yaml").touch()
    assert message("inside/y.yaml").endswith("got nothing there; did you mean inside/z.yaml?")
    Path("y.yaml").write_bytes(b"\xff\xfe\xfa")
    assert message("y.yaml") == "y.yaml: must be a readable study file, got bytes that are not UTF-8"
    Path("y.yaml").write_text('question: "\\ud800"')
    assert message("y.yaml").startswith("y.yaml: 'utf-8' codec can't encode character '\\ud800'")
    for text, came in (("", "nothing"), ("- a\n", "a list"), ("7", "7")):
        Path("y.yaml").write_text(text)
        assert message("y.yaml") == f"y.yaml: must be a mapping of keys such as question and axes, got {came}"


# Overrides


def test_options_replace_what_the_file_says(write, tmp_path):
    study = load_study(
        write(),
        datasets="own, phantom_ct,",
        data_root="data",
        seeds="7,8",
        settings={"recipe.epochs": "5", "recipe.flip": "none", "axes.split_ratio": "[0, 0.5]", "alpha": "0.01"},
    )
    assert (study.datasets, study.seeds, study.alpha) == (("own", "phantom_ct"), (7, 8), 0.01)
    assert study.recipe == Recipe(epochs=5, flip="none")
    assert study.source == {"root": str(tmp_path / "data")}
    assert len(study.variants()) == 2
    assert load_study(write(), seeds=[3], datasets=["a"]).seeds == (3,)
    assert load_study(write(), settings={"contrasts.0.margin": "0.5"}).contrasts[0].margin == 0.5
    assert load_study(write(SEARCH), settings={"strategy.trials": "20"}).strategy.trials == 20
    assert load_study(write(SEARCH), settings={"recipe.epochs": "2"}).recipe.epochs == 2
    whole_and_part = load_study(write(), settings={"recipe": "{flip: none}", "recipe.epochs": "2"})
    assert whole_and_part.recipe == Recipe(epochs=2, flip="none")


OPTIONS = [
    (
        {"settings": {"recipe.epochs": "x"}},
        "--set recipe.epochs must be a whole number from 1 to 100000, got the string 'x'",
    ),
    (
        {"settings": {"recipe.learning_rate": "1e-4"}},
        "--set recipe.learning_rate must be a number from 1e-08 to 10, got the string '1e-4' (write 1.0e-4)",
    ),
    ({"settings": {"recipe": "5"}}, "--set recipe must be a mapping, got 5"),
    ({"settings": {"recipe": "{epochs: 0}"}}, "--set recipe.epochs must be a whole number from 1 to 100000, got 0"),
    (
        {"settings": {"axes.split_ratio": "[0, 2]"}},
        "--set axes.split_ratio[1] must be a number from 0 to 1, got 2",
    ),
    (
        {"settings": {"strategy.trials": "3"}},
        "--set strategy.name must be given, got nothing "
        "(what to run next: all of the grid, a race between its variants, or proposals by Optuna)",
    ),
    ({"settings": {"seeds.5": "3"}}, "--set seeds.5 must lead to a key of the study, got '5' inside a list of 2"),
    ({"settings": {"seeds.²": "3"}}, "--set seeds.² must lead to a key of the study, got '²' inside a list of 2"),
    ({"settings": {"base.x": "3"}}, "--set base.x must lead to a key of the study, got 'x' inside a text"),
    ({"settings": {"recipe..x": "3"}}, "--set recipe..x must name a key such as recipe.epochs, got 'recipe..x'"),
    (
        {"settings": {"recipe.epochs": "[1"}},
        "--set recipe.epochs must be a YAML value, got '[1' "
        "(expected ',' or ']', but got '<stream end>' on line 1, column 3)",
    ),
    (
        {"settings": {"recipe.epoch": "1"}},
        "--set recipe.epoch must be one of "
        f"{', '.join(f.name for f in dataclasses.fields(Recipe))}; got 'epoch' (did you mean epochs?)",
    ),
    ({"seeds": "0,x"}, "--seeds[1] must be a whole number from 0 to 4294967295, got the string 'x'"),
    ({"seeds": "0,0"}, "--seeds must not repeat a value, got 0 twice"),
    ({"seeds": ""}, "--seeds must list at least one, got []: the study would be empty"),
    ({"datasets": ","}, "--datasets must list at least one, got []: the study would be empty"),
    ({"datasets": "a,b,a"}, "--datasets must not repeat a value, got the string 'a' twice"),
    (
        {"settings": {"recipe.epochs": "4", "recipe": "{flip: none}"}},
        "recipe.epochs must be set once, got it from --set recipe.epochs and from --set recipe",
    ),
    (
        {"settings": {"recipe": "{epochs: 3, flip: none}", "recipe.epochs": "4"}},
        "recipe.epochs must be set once, got it from --set recipe and from --set recipe.epochs",
    ),
    (
        {"settings": {"seeds": "[1]", "seeds.0": "4"}},
        "seeds.0 must be set once, got it from --set seeds and from --set seeds.0",
    ),
    (
        {"settings": {"datasets.0": "a"}, "datasets": "b"},
        "datasets.0 must be set once, got it from --set datasets.0 and from --datasets",
    ),
    ({"settings": {"seeds": "[1]"}, "seeds": "2"}, "seeds must be set once, got it from --set seeds and from --seeds"),
    (
        {"settings": {"source": "{kind: npz, root: a}"}, "data_root": "b"},
        "source.root must be set once, got it from --set source and from --data-root",
    ),
    ({"data_root": ""}, "--data-root must be a text, got the string ''"),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_a_bad_option_gets_one_line(write, options, expected):
    assert message(write(), **options) == expected


# Hashes


def test_the_hash_is_the_content(write):
    study = load_study(write())
    same = GRID.replace("How much", "How  much more").replace("[0, .25, 0.5]", "[0.0, 0.25, 5.0e-1]") + "# note\n"
    assert load_study(write(same)).study_hash == study.study_hash
    assert load_study(write(recipe="recipe: {epochs: 3, batch_size: 32}")).study_hash == study.study_hash


def test_what_is_written_for_readers_is_kept_and_in_no_hash(write):
    words = {"hypothesis": "None gains:\n  a\n  lot.", "controls": "The null.", "caveat": "Small maps."}
    lines = {key: f"{key}: |\n  {text}" for key, text in words.items()}
    bare, told = load_study(write()), load_study(write(**lines))
    assert (bare.hypothesis, bare.controls, bare.caveat) == ("", "", "")
    assert (told.hypothesis, told.controls, told.caveat) == ("None gains: a lot.", "The null.", "Small maps.")
    assert (told.study_hash, told.contrasts_hash) == (bare.study_hash, bare.contrasts_hash)
    assert [c.cell_id for c in told.cells(refs(told))] == [c.cell_id for c in bare.cells(refs(bare))]
    manifest = told.manifest()
    assert [manifest[key] for key in words] == ["None gains: a lot.", "The null.", "Small maps."]


@pytest.mark.parametrize(
    ("line", "declared"),
    [
        ("seeds: [0]", False),
        ("datasets: [phantom_ct]", False),
        ("recipe: {epochs: 4}", False),
        ("axes: {split_ratio: [0, 0.5]}", False),
        ("variant: {d_state: 4}", True),
        ("alpha: 0.01", True),
        ("correction: bh", True),
        ("contrasts: []", True),
        (_block(GRID, "contrasts").replace(".02", ".03").rstrip(), True),
        (_block(GRID, "contrasts").replace("family: f", "family: g").rstrip(), True),
    ],
)
def test_the_hashes_change_with_what_they_cover(write, line, declared):
    study = load_study(write())
    other = load_study(write(**{line.partition(":")[0]: line}))
    assert other.study_hash != study.study_hash
    assert (other.contrasts_hash != study.contrasts_hash) == declared


def test_a_search_can_be_prolonged_but_not_changed(write):
    study = load_study(write(SEARCH))
    longer = load_study(write(SEARCH), settings={"strategy.trials": "9"})
    assert longer.study_hash != study.study_hash
    assert longer.search_hash(refs(study)) == study.search_hash(refs(study))
    assert study.search_hash({"phantom_ct": DataRef("phantom_ct", "new", {})}) != study.search_hash(refs(study))
    for settings in ({"strategy.seed": "1"}, {"axes.fusion": "[shuffle]"}, {"recipe.epochs": "1"}):
        other = load_study(write(SEARCH), settings=settings)
        assert other.search_hash(refs(study)) != study.search_hash(refs(study))


def test_the_manifest_is_plain_json(write):
    for text in (GRID, SEARCH):
        study = load_study(write(text))
        manifest = study.manifest(["a", "b"])
        assert json.loads(json.dumps(manifest, allow_nan=False)) == manifest
        assert manifest["file_text"] == text and manifest["cell_ids"] == ["a", "b"]
        assert manifest["study_hash"] == study.study_hash
    manifest = load_study(write()).manifest()
    # What a reader who does not know the names of axes needs: of those that the page shows, and no others.
    shown = {*manifest["base"], *manifest["contrasts"][0]["against_variant"]}
    assert set(manifest["meanings"]) == shown and manifest["meanings"]["depths"] == AXES["depths"].meaning
    contrast = manifest["contrasts"][0]
    assert contrast["baseline"] == PRESETS["nano"].variant_id and contrast["margin"] == 0.02
    assert VariantConfig.from_dict(contrast["against_variant"]).variant_id == contrast["against"]


# The files shipped


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_loads_and_opens_with_its_purpose(path):
    study = load_study(path)
    lines = path.read_text().splitlines()
    depth = len(path.relative_to(ROOT / "search_spaces").parts) - 1
    assert lines[0] == f"# yaml-language-server: $schema={'../' * depth}schema.json"
    heads = ("# Command:", "# Cells:", "# Cost:")
    header = [line for line in lines if line.startswith("#")]
    assert [head for line in header for head in heads if line.startswith(head)] == list(heads)
    assert f"python -m study.launch {path.relative_to(ROOT)}" in path.read_text()
    cells = make_plan(study, refs(study), Ledger("/nonexistent")).total
    assert f"= {cells}" in next(line for line in header if line.startswith("# Cells:"))
    least = 3 if path.parent.name == "real" else 5 if study.is_grid else 2
    assert len(study.seeds) >= least or not study.contrasts
    assert study.hypothesis and study.controls and study.caveat


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name != "real"], ids=lambda path: path.stem)
def test_a_shipped_file_needs_no_download(path):
    """Every data set is a phantom whose dials can be turned so."""
    for name in load_study(path).datasets:
        plain, _ = parse_name(name)
        assert plain in PHANTOMS


def test_the_studies_are_there():
    top = ["downsampling", "fusion", "joint_search", "scan_directions", "scan_orders", "split_ratio", "ssm_needed"]
    assert [path.stem for path in FILES if path.parent.name == "search_spaces"] == top
    assert {path.parent.name for path in FILES} == {"search_spaces", "blocks", "data", "plan", "real", "scan"}
    # Results are kept by a study's name.
    assert len({path.stem for path in FILES}) == len(FILES)


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem not in WITHOUT_CONTRASTS], ids=lambda path: path.stem
)
def test_a_shipped_grid_can_reach_its_alpha(path):
    study = load_study(path)
    assert study.contrasts
    assert all(reaches(study, contrast) and contrast.kind == "confirmatory" for contrast in study.contrasts)
    against = {contrast.against for contrast in study.contrasts} | {contrast.baseline for contrast in study.contrasts}
    assert against == {variant for _, variant in study.variants()}


# The schema for editors


def test_the_schema_file_is_current():
    assert json.loads((ROOT / "search_spaces" / "schema.json").read_text()) == json_schema(), "run: make schema"


def test_the_schema_accepts_the_shipped_files_and_refuses_typos():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    for path in FILES:
        values = yaml.safe_load(path.read_text())
        assert list(validator.iter_errors(values)) == []
        assert not validator.is_valid({**values, "strategi": {}})
        assert not validator.is_valid({**values, "axes": {"fusion": ["shufle"]}})
        assert not validator.is_valid({**values, "recipe": {"epochs": "3"}})
        assert not validator.is_valid({key: value for key, value in values.items() if key != "seeds"})


def test_the_schema_is_written_where_asked(tmp_path):
    out = tmp_path / "schema.json"
    subprocess.run([sys.executable, "-m", "study.schema", str(out)], check=True, cwd=ROOT, env={**os.environ})
    assert json.loads(out.read_text()) == json_schema()


def test_reading_a_study_needs_no_heavy_library(write):
    code = (
        "import sys; from study.file.reading import load_study; load_study(sys.argv[1]); "
        "print([m for m in ('torch', 'ray', 'mlflow', 'optuna', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(write().absolute())], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.strip() == "[]"


def test_a_cell_knows_nothing_of_its_study(write):
    study = load_study(write())
    other = load_study(write(question="question: Another?"))
    first, second = next(study.cells(refs(study))), next(other.cells(refs(other)))
    assert isinstance(first, Cell) and first.cell_id == second.cell_id
