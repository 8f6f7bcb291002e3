"""A study's sources: from its file, else from its data; in manifest, records, plan and dry run, and in no id."""

import json

import numpy as np
import pytest
from launch_fixture import folder, launch  # noqa: F401, a fixture

from analysis.records.ledger import load_ledger, read_records
from analysis.records.manifests import load_manifest
from analysis.records.table import sources_of
from study.declaration.cells import DataRef
from study.file.reading import load_study
from study.planning.inputs import read_inputs
from study.planning.reach import reaches, smallest_p, unreachable

SEVEN = "phantom_ct,phantom_mri,phantom_xray,phantom_fundus,phantom_sparse,phantom_texture,phantom_histology"
TWICE = "--set=sources={phantom_ct: scanner, phantom_mri: scanner}"


def study(folder, **settings):  # noqa: F811
    return load_study(folder / "study.yaml", datasets=settings.pop("datasets", None), settings=settings)


def test_sources_change_what_is_declared_and_no_cell(folder):  # noqa: F811
    plain, told = study(folder), study(folder, sources="{phantom_ct: scanner}")
    assert told.own_sources == {"phantom_ct": "scanner"} and plain.own_sources == {}
    assert told.contrasts_hash != plain.contrasts_hash and told.study_hash != plain.study_hash
    refs = {name: DataRef(name, "f", {}) for name in plain.datasets}
    assert [cell.cell_id for cell in told.cells(refs)] == [cell.cell_id for cell in plain.cells(refs)]
    # What this suite declared before there were sources keeps its hash.
    assert plain.contrasts_hash == "9772aa596cde0953"
    assert plain.manifest()["source_keys"] == {"phantom_ct": "phantom_ct"} and "sources" not in plain.manifest()
    assert told.manifest()["sources"] == told.manifest()["source_keys"] == {"phantom_ct": "scanner"}
    known = {"phantom_ct": DataRef("phantom_ct", "f", {}, "known")}
    assert plain.manifest(refs=known)["source_keys"] == {"phantom_ct": "known"}
    assert told.manifest(refs=known)["source_keys"] == {"phantom_ct": "scanner"}, "the study's own wins"


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        (
            "{phantom_cd: a}",
            "sources.phantom_cd must be one of phantom_ct; got 'phantom_cd' (did you mean phantom_ct?)",
        ),
        ("{phantom_ct: 3}", "sources.phantom_ct must be the key of a collection, got 3"),
        ("[phantom_ct]", "sources must be a mapping, got"),
    ],
)
def test_wrong_sources_are_refused_in_one_line(folder, sources, problem):  # noqa: F811
    with pytest.raises(ValueError) as caught:
        study(folder, sources=sources)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_a_plan_counts_sources(folder):  # noqa: F811
    seven = study(folder, datasets=SEVEN.split(","))
    assert smallest_p(seven, seven.contrasts[0]) == 2 / 2**7 and unreachable(seven) is None
    five = study(folder, datasets=SEVEN.split(","), sources="{phantom_ct: s, phantom_mri: s, phantom_xray: s}")
    assert smallest_p(five, five.contrasts[0]) == 2 / 2**5 and not reaches(five, five.contrasts[0])
    assert (
        "with a smallest p of 0.0625 on 7 data sets of 5 sources (takes 6 sources, or level: these data sets, or kind"
        in unreachable(five)
    )
    # As the data say themselves.
    refs = {name: DataRef(name, name, {}, "t" if name < "phantom_k" else name) for name in seven.datasets}
    assert smallest_p(seven, seven.contrasts[0], refs) == 2 / 2 ** len({ref.source_key for ref in refs.values()})


def test_a_dry_run_and_a_launch_say_what_counts_once(folder, capsys):  # noqa: F811
    assert launch("--dry-run", "--seeds", "0", "--datasets", SEVEN, TWICE) == 0
    out = capsys.readouterr().out
    told = "sources: phantom_ct and phantom_mri are one (scanner): averaged, they count once"
    assert f"\n{told}\n" in out and "contrasts over 7 data sets of 6 sources: the smallest p of a" in out
    assert "of its standard deviations over sources" in out
    assert launch("--dry-run", "--seeds", "0", "--datasets", SEVEN) == 0
    assert "source" not in capsys.readouterr().out
    two = ("--seeds", "0", "--datasets", "phantom_ct,phantom_mri,phantom_xray")
    assert launch(*two, TWICE) == 0
    out = capsys.readouterr().out
    assert f"note: {told}\n" in out and "t over the means of 2 sources of 3 data sets" in out
    assert "3 data sets of 2 sources, 1 seed" in out
    records, _ = read_records(folder / "mlruns")
    assert {r["dataset"]: r["source_key"] for r in records} == {
        "phantom_ct": "scanner", "phantom_mri": "scanner", "phantom_xray": "phantom_xray",
    }  # fmt: skip
    manifest = load_manifest(folder / "mlruns", "study")
    assert manifest["sources"] == {"phantom_ct": "scanner", "phantom_mri": "scanner"}
    assert manifest["source_keys"]["phantom_xray"] == "phantom_xray"
    table = load_ledger(folder / "mlruns", study="study")
    assert sources_of(table) == manifest["source_keys"]
    assert table["source_key"].isna().sum() == 2, "its own name needs no telling"


def test_what_the_catalogue_says_reaches_the_plan(folder, tmp_path):  # noqa: F811
    rng = np.random.default_rng(0)
    for name in ("breastmnist", "mine"):
        arrays = {}
        for split, count in (("train", 8), ("val", 4), ("test", 6)):
            arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 20), dtype=np.uint8)
            arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "datasets.json").write_text(json.dumps({"mine": {"source_key": "busi"}}))
    asked = load_study(folder / "study.yaml", datasets="breastmnist,mine", data_root=tmp_path)
    inputs = read_inputs(asked)
    assert {name: ref.source_key for name, ref in inputs.refs.items()} == {"breastmnist": "busi", "mine": "busi"}
    assert inputs.infos["mine"].source_key == "busi"
    assert smallest_p(asked, asked.contrasts[0], inputs.refs) == 1
    own = load_study(
        folder / "study.yaml", datasets="breastmnist,mine", data_root=tmp_path, settings={"sources": "{mine: other}"}
    )
    assert read_inputs(own).refs["mine"].source_key == read_inputs(own).infos["mine"].source_key == "other"
