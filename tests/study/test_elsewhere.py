"""Contrasts with variants of another study: the same cells, so nothing runs twice, and every difference is named."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from analysis.verdicts.declared import read_declaration
from study.declaration.cells import DataRef
from study.file.keys import study_schema
from study.file.reading import load_study

OWN = {
    "question": "Does attention beat what the other study found best?",
    "base": "nano",
    "axes": {"fusion": ["shuffle", "attention"]},
    "seeds": [0, 1],
    "datasets": ["phantom_ct"],
    "recipe": {"epochs": 3},
    "contrasts": [
        {
            "name": "attention",
            "baseline": {"study": "ratios", "variant": "split_ratio=0.25"},
            "against": {"fusion": "attention"},
            "metric": "macro_f1",
            "margin": 0.02,
        }
    ],
}
OTHER = {
    "question": "How much scan?",
    "base": "nano",
    "axes": {"split_ratio": [0, 0.25, 0.5]},
    "seeds": [0, 1, 2],
    "datasets": ["phantom_ct", "phantom_mri"],
    "recipe": {"epochs": 3},
    # Names a variant of the first in turn: two studies may speak of each other.
    "contrasts": [
        {
            "name": "ratio",
            "baseline": {"study": "fusions.yaml", "variant": "fusion=attention"},
            "against": {"split_ratio": 0},
            "metric": "macro_f1",
            "margin": 0.02,
        }
    ],
}


@pytest.fixture
def write(tmp_path):
    def write(own=None, other=None, side=None):
        text = {**OWN, **(own or {})}
        if side is not None:
            text["contrasts"] = [{**OWN["contrasts"][0], "baseline": side}]
        for name, values in (("fusions", text), ("ratios", {**OTHER, **(other or {})})):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        return tmp_path / "fusions.yaml"

    return write


def cells_of(study):
    refs = {name: DataRef(name, f"content of {name}", {}) for name in study.datasets}
    return {cell.cell_id for cell in study.cells(refs)}


def test_the_variant_of_the_other_study_is_one_of_this(write):
    study = load_study(write())
    options = {"seeds": "0,1", "datasets": "phantom_ct", "settings": {"contrasts": "[]"}}
    other = load_study(study.path.with_name("ratios.yaml"), **options)
    assert [label for label, _ in study.variants()] == ["baseline", "fusion=attention", "split_ratio=0.25"]
    (contrast,) = study.contrasts
    assert contrast.baseline.split_ratio == 0.25 and contrast.baseline_label == "split_ratio=0.25"
    # Its cells are the other study's: what has run there does not run again.
    shared = cells_of(study) & cells_of(other)
    assert len(shared) == 2 * 2 and len(cells_of(study)) == 3 * 2
    # The declaration that the ledger keeps has both sides by their ids.
    (declared,) = read_declaration(json.loads(json.dumps(study.manifest()))).contrasts
    assert declared.baseline == dict(other.variants())["split_ratio=0.25"].variant_id
    assert declared.baseline in study.manifest()["variants"]


def test_a_shared_variant_stands_once_and_a_taken_label_names_its_study(write):
    same = load_study(write(side={"study": "ratios", "variant": "baseline"}))
    assert [label for label, _ in same.variants()] == ["baseline", "fusion=attention"]
    assert same.contrasts[0].baseline == same.base
    tiny = load_study(write(side={"study": "ratios", "variant": "baseline"}, other={"variant": {"depths": [1, 1, 1]}}))
    assert [label for label, _ in tiny.variants()][-1] == "baseline (ratios)"
    assert tiny.contrasts[0].baseline_label == "baseline (ratios)" and tiny.contrasts[0].baseline != tiny.base


def test_options_hold_for_both(write):
    study = load_study(write(), seeds="2", settings={"recipe.epochs": "1"})
    assert study.recipe.epochs == 1 and study.seeds == (2,) and len(study.variants()) == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"side": {"study": "none", "variant": "x"}},
            "study must be a study's file or a name beside this one, got none",
        ),
        ({"side": {"study": "ratios"}}, "variant must be a text, got nothing"),
        ({"side": {"study": "ratios", "variant": "split_ratio=1"}}, "variant must be one of split_ratio=0, "),
        ({"side": {"study": "ratios", "label": "x"}}, "label must be one of study, variant; got 'label'"),
        ({"other": {"recipe": {"epochs": 5}}}, "got recipe.epochs 5 in ratios, 3 here"),
        ({"other": {"recipe": {"epochs": 3, "batch_size": 8}}}, "got recipe.batch_size 8 in ratios, "),
        ({"other": {"datasets": ["phantom_mri"]}}, "got datasets phantom_mri in ratios, without phantom_ct"),
        ({"other": {"seeds": [1, 2]}}, "got seeds 1, 2 in ratios, without 0"),
        ({"other": {"recipe_axes": {"learning_rate": [0.001, 0.002]}}}, "got recipe_axes in ratios, by which every"),
        (
            {"other": {"source": {"kind": "npz", "root": "/data"}}},
            "got source the mapping {'kind': 'npz', 'root': '/data'}",
        ),
    ],
)
def test_what_differs_is_named_in_one_line(write, changes, expected):
    with pytest.raises(ValueError) as caught:
        load_study(write(**changes))
    said = str(caught.value)
    assert "\n" not in said and "contrasts[0].baseline" in said and expected in said
    if "other" in changes:
        assert "must have this study's recipe, data and seeds, got " in said


def test_a_fault_of_the_other_file_names_that_file(write):
    with pytest.raises(ValueError, match=r"ratios\.yaml: base must be one of"):
        load_study(write(other={"base": "huge"}))


def test_a_search_has_no_variant_to_name(write):
    search = {
        "axes": {"split_ratio": {"low": 0, "high": 1}},
        "strategy": {"name": "tpe", "trials": 2, "objectives": ["macro_f1"]},
    }
    with pytest.raises(ValueError, match=r"contrasts\[0\]\.baseline\.variant must be"):
        load_study(write(other=search))


def test_the_schema_knows_it(write):
    jsonschema.validate(yaml.safe_load(Path(write()).read_text()), study_schema())
