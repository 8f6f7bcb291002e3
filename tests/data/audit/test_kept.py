"""Short audits at a launch: told in a dry run, kept in the store and the manifest, shown on the page, made once."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ledger_fixture import Design, write_ledger
from made_images import clean, made
from PIL import Image

from analysis.audits import notices
from analysis.records.manifests import load_manifest
from analysis.report.evidence import load_evidence
from analysis.report.sections import grounds
from study.audit import kept
from study.audit.between import between
from study.audit.findings import short_audit
from study.audit.pool import pool_of
from study.data import open_source
from study.declaration.cells import DataRef
from study.launch import main
from study.telling.dry_run import audit_lines

FILE = """\
question: Does it run?
base: nano
variant: {depths: [1, 1], dims: [8, 16], d_state: 2}
variants: {one: {}}
seeds: [0]
datasets: [leaky, phantom_ct]
recipe: {epochs: 1, batch_size: 50}
"""
FAULTS = (
    "2 of 16 test images have equal pixels in train or val: test/4 and train/1",
    "1 pair of look-alikes with two labels (1 with equal pixels): test/4 (class 0) and train/1 (class 1)",
)


def leaky():
    images, labels = clean()
    images["test"][4] = images["train"][1]
    images["test"][9] = images["val"][5]
    return images, labels


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with study.yaml and the set `leaky` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(FILE)
    images, labels = leaky()
    arrays = {f"{name}_images": part for name, part in images.items()}
    np.savez(tmp_path / "leaky.npz", **arrays, **{f"{name}_labels": part for name, part in labels.items()})
    return tmp_path


def launch(*options):
    return main(["study.yaml", "--tracking-uri", "none", "--executor", "inline", "--data-root", ".", *options])


def test_a_dry_run_tells_them_and_keeps_nothing(folder, capsys):
    assert launch("--dry-run") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("audit: ")] == [f"audit: leaky: {fault}" for fault in FAULTS]
    assert not (folder / "mlruns").exists()
    clean_one = {"sets": {"clean": short_audit(made(*clean()))}, "shared": []}
    assert audit_lines(notices(clean_one, {})) == ["audit: no picture stands in two splits, or bears two labels"]


def test_a_launch_tells_and_records_them(folder, capsys):
    assert launch("--no-report") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("note: ")] == [f"note: leaky: {fault}" for fault in FAULTS]
    manifest = load_manifest(folder / "mlruns", "study")
    sets = manifest["audits"]["sets"]
    assert list(sets) == ["leaky", "phantom_ct"] and manifest["audits"]["shared"] == []
    seen = sets["leaky"]["alike"]["seen"]["test"]
    assert seen == {"of": 16, "images": 2, "equal": 2, "turned": 0}
    assert not any(sets["phantom_ct"]["alike"]["pairs"].values())
    section = grounds.audits(load_evidence(folder / "mlruns", "study"))
    assert section is not None and section.title == "Faults of the data sets"
    assert all(f"<li>leaky: {fault}.</li>" in section.html for fault in FAULTS)
    assert "phantom_ct" not in section.html


def test_a_page_says_nothing_of_clean_sets(tmp_path):
    evidence = load_evidence(write_ledger(tmp_path, Design(images=10, seeds=(0,))), "split_ratio")
    assert grounds.audits(evidence) is None
    assert grounds.audits(replace(evidence, manifest={**evidence.manifest, "audits": {}})) is None


def ref_of(root, kind="npz"):
    spec = {"kind": kind, "root": str(root)}
    return DataRef("leaky", open_source(spec).describe("leaky").fingerprint, spec)


def test_an_audit_is_made_once_for_a_content(folder, monkeypatch):
    ref, store = ref_of(folder), folder / "store"
    first = kept.short_audits({"leaky": ref}, store, keep=False)
    assert not store.exists()
    assert kept.short_audits({"leaky": ref}, store, keep=True) == first
    (path,) = store.rglob("*.json")
    made = []
    real = kept.short_audit
    monkeypatch.setattr(
        kept, "short_audit", lambda dataset, pool: made.append(dataset.info.name) or real(dataset, pool)
    )
    # Another name of the same content is the same data.
    again = kept.short_audits({"copy": replace(ref, name="copy")}, store, keep=True)
    assert again["sets"]["copy"] == {**first["sets"]["leaky"], "name": "copy"} and made == []
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 0}))
    assert kept.short_audits({"leaky": ref}, store, keep=True) == first and made == ["leaky"]
    path.write_text("torn")
    assert kept.short_audits({"leaky": ref}, store, keep=True) == first and made == ["leaky"] * 2


def test_a_large_set_waits_for_a_launch(folder, monkeypatch):
    ref, store = ref_of(folder), folder / "store"
    monkeypatch.setattr(kept, "LARGE", 70_000)
    waits = kept.short_audits({"leaky": ref}, store, keep=False)
    assert audit_lines(notices(waits, {}))[0] == "audit: leaky: so large that its first launch audits it, not a dry run"
    made = kept.short_audits({"leaky": ref}, store, keep=True)
    assert made["sets"]["leaky"]["alike"]["seen"]["test"]["images"] == 2
    # What a launch has kept, a dry run tells.
    assert kept.short_audits({"leaky": ref}, store, keep=False) == made


def test_folders_and_files_give_the_same_findings(folder, tmp_path):
    images, labels = leaky()
    for name, part in images.items():
        for number, image in enumerate(part):
            path = tmp_path / "pictures" / "leaky" / name / ("calm", "ill")[labels[name][number]] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    by_file = kept.short_audits({"leaky": ref_of(folder)}, tmp_path / "store", keep=True)["sets"]["leaky"]["alike"]
    by_folder = kept.short_audits({"leaky": ref_of(tmp_path / "pictures", "folder")}, tmp_path / "store", keep=True)[
        "sets"
    ]["leaky"]
    examples, others = by_file.pop("examples"), by_folder["alike"].pop("examples")
    assert by_folder["alike"] == by_file
    assert examples["conflicts"][0]["images"] == ["test/4", "train/1"]
    assert others["conflicts"][0]["images"] == ["test/calm/4.png", "train/ill/1.png"]


def test_pictures_that_two_sets_share_are_told_once_for_both(folder, tmp_path):
    """Another set with three of the pictures, at another size and brightness, in whatever split."""
    images, labels = leaky()
    small = {name: part[:, 3:-3, ::2] for name, part in clean(seed=7)[0].items()}
    other = {
        name: np.stack([np.asarray(Image.fromarray(one).resize((24, 20))) for one in part])
        for name, part in small.items()
    }
    for split, place, source, row in (("val", 2, "train", 7), ("test", 3, "test", 8), ("train", 0, "val", 1)):
        other[split][place] = np.asarray(Image.fromarray(images[source][row]).resize((24, 20))) // 2 + 30
    arrays = {f"{name}_images": part for name, part in other.items()}
    np.savez(tmp_path / "another.npz", **arrays, **{f"{name}_labels": part for name, part in labels.items()})
    spec = {"kind": "npz", "root": str(tmp_path)}
    refs = {name: DataRef(name, open_source(spec).describe(name).fingerprint, spec) for name in ("leaky", "another")}
    audits = kept.short_audits(refs, tmp_path / "store", keep=True)
    shown = audits["shared"][0]["examples"][0]["images"]
    assert [fault.line for fault in notices(audits, {}) if len(fault.sets) == 2] == [
        "another and leaky: 3 of 68 and 3 of 68 images show the same pictures, such as another "
        f"{shown[0]} and leaky {shown[1]}, so they are one source, which `sources` can say"
    ]
    # One source counts once, as it is.
    assert not [fault for fault in notices(audits, {"leaky": "c", "another": "c"}) if len(fault.sets) == 2]
    pairs = {
        tuple(pair["images"])
        for pair in between("a", "b", *(pool_of(open_source(spec).load(name)) for name in ("another", "leaky")))[
            "examples"
        ]
    }
    assert pairs == {("val/2", "train/7"), ("test/3", "test/8"), ("train/0", "val/1")}
    assert kept.short_audits(refs, tmp_path / "store", keep=True) == audits
    alone = kept.short_audits(
        {"phantom_ct": DataRef("phantom_ct", "x", {"kind": "phantom"}), "leaky": refs["leaky"]},
        tmp_path / "s",
        keep=False,
    )
    assert alone["shared"] == []


def test_of_many_shared_pictures_the_most_and_the_least_alike_are_listed():
    images, labels = clean((60, 20, 20))
    rng = np.random.default_rng(0)
    noisy = {
        name: np.stack([np.clip(one + rng.normal(0, 0.1 * place, one.shape), 0, 255) for place, one in enumerate(part)])
        for name, part in images.items()
    }
    pools = [
        pool_of(made(part, labels)) for part in (images, {name: part.astype(np.uint8) for name, part in noisy.items()})
    ]
    whole, few = (between("a", "b", *pools, listed=listed) for listed in (1000, 6))
    values = [pair["correlation"] for pair in whole["examples"]]
    assert whole["pairs"] == few["pairs"] == len(values) > 50 and values == sorted(values, reverse=True)
    assert [pair["correlation"] for pair in few["examples"]] == [*values[:3], *values[-3:]]
