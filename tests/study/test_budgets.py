"""Equal budgets: variants matched in cost, recipes tuned by the same trials, and what the page says of both."""

import pytest

from analysis.records.ledger import load_ledger, read_records
from analysis.records.manifests import load_manifest
from medmamba_variants.scaling import cost_at
from study.declaration.cells import DataRef
from study.file.reading import load_study
from study.launch import main
from study.planning.tuning import choose, tuning_cells

FILE = """\
question: Does a small MedMamba beat a small ResNet at equal cost?
base: nano
variant: {depths: [1, 1], dims: [8, 16], d_state: 2}
variants:
  ours: {}
  no scan: {split_ratio: 0}
match: {macs: ours, tolerance: 0.05}
seeds: [0, 1]
datasets: [phantom_ct]
recipe: {epochs: 1, batch_size: 50, image_budget: 50, image_size: 16}
recipe_axes: {learning_rate: [1.0e-8, 2.0e-3], weight_decay: [0.05]}
contrasts:
  - {name: scan, baseline: no scan, against: ours, metric: macro_auc_ovr, margin: 0.01, kind: exploratory}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(FILE)
    return tmp_path


def launch(*arguments):
    return main(["study.yaml", "--tracking-uri", "none", "--executor", "inline", *arguments])


def written(folder, text):
    (folder / "study.yaml").write_text(text)
    return load_study("study.yaml")


def test_variants_and_contrasts_are_the_scaled_ones(folder):
    study = load_study("study.yaml")
    (_, ours), (_, other) = study.variants()
    assert abs(cost_at(other, "macs", 16) / cost_at(ours, "macs", 16) - 1) <= 0.05
    assert study.contrasts[0].baseline == other and study.contrasts[0].against == ours
    assert study.label(other) == "no scan"
    found = study.matched
    assert found["baseline"] == "ours" and found["image_size"] == 16
    row = found["variants"][1]
    assert row["before"]["dims"] == [8, 16] and row["variant_id"] == other.variant_id
    assert row["macs_before"] > row["macs_after"] == cost_at(other, "macs", 16)
    # By axes the labels stay as the file writes them.
    text = FILE.replace("variants:\n  ours: {}\n  no scan: {split_ratio: 0}\n", "axes: {split_ratio: [0, 0.5]}\n")
    grid = written(folder, text.replace("macs: ours", "params: {split_ratio: 0.5}").partition("contrasts:")[0])
    assert [label for label, _ in grid.variants()] == ["split_ratio=0", "baseline"]
    sizes = [cost_at(variant, "params", 16) for _, variant in grid.variants()]
    assert abs(sizes[0] / sizes[1] - 1) <= 0.05


def test_a_study_without_budgets_keeps_its_hash_and_one_with_them_has_another(folder):
    plain = written(folder, FILE.replace("match: {macs: ours, tolerance: 0.05}\n", "").replace("recipe_axes", "#"))
    assert plain.matched is None and plain.tuning is None
    hashes = {plain.study_hash, written(folder, FILE).study_hash}
    hashes.add(written(folder, FILE.replace("weight_decay: [0.05]", "weight_decay: [0.01]")).study_hash)
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{macs: ours,", "{macs: theirs,", "match.macs must be one of variants (ours, no scan), got 'theirs'"),
        ("{macs: ours,", "{macs: ours, params: ours,", "match must have one of macs and params, got macs and params"),
        ("{macs: ours, tol", "{tol", "match must have one of macs and params, got neither"),
        ("macs: ours", "macs: {split_ratio: 1}", "match.macs must be a variant of the study (ours, no scan), got"),
        ("tolerance: 0.05", "tolerance: 1.0e-9", "match.macs: split_ratio=0"),
        ("learning_rate: [1.0e-8, 2.0e-3]", "learning_rate: [2.0e-3]", "must make at least two recipes, got one"),
        ("learning_rate: [1.0e-8, 2.0e-3]", "learning_rate: [5, 50]", "recipe_axes.learning_rate[1] must be"),
        ("learning_rate: [1", "lerning_rate: [1", "did you mean learning_rate"),
        ("learning_rate: [1.0e-8, 2.0e-3]", "image_size: [16, 32]", "recipe_axes.image_size must be one of"),
        ("epochs: 1,", "epochs: 1, weight_decay: 0.1,", "recipe_axes.weight_decay must not be set under recipe too"),
        ("seeds: [0, 1]", "seeds: [0, 1]\ntuning_seeds: [1]", "tuning_seeds must be seeds that are not among seeds"),
        ("seeds: [0, 1]", "seeds: [0, 1]\ntuning_datasets: [a]", "tuning_datasets must be some of datasets, got a"),
        ("seeds: [0, 1]", "seeds: [0, 1]\ntuning_datasets: []", "tuning_datasets must"),
        ("recipe_axes: {", "tuning_datasets: [phantom_ct]  # {", "tuning_datasets must go with recipe_axes"),
    ],
)
def test_bad_budgets_are_refused_in_one_line(folder, old, new, words):
    assert old in FILE
    with pytest.raises(ValueError) as caught:
        written(folder, FILE.replace(old, new))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_best_mean_on_validation_is_chosen_and_a_failed_recipe_never(folder):
    study = written(folder, FILE.replace("datasets: [phantom_ct]", "datasets: [phantom_ct, phantom_mri]"))
    refs = {name: DataRef(name, name, {}) for name in study.datasets}
    cells = tuning_cells(study, study.variants()[0][1], refs)
    assert [[(cell.data.name, cell.seed) for cell in tried] for tried in cells] == 2 * [
        [("phantom_ct", 10_000), ("phantom_mri", 10_000)]
    ]
    values = {cells[0][0].cell_id: 0.9, cells[0][1].cell_id: 0.5, cells[1][0].cell_id: 0.6, cells[1][1].cell_id: 0.7}
    records = {i: {"status": "done", "validation": {"macro_auc_ovr": value}} for i, value in values.items()}
    best = choose(study, cells, records)
    assert best.place == 0 and best.scores == pytest.approx((0.7, 0.65))
    records[cells[0][1].cell_id] = {"status": "failed", "validation": None}
    assert choose(study, cells, records).place == 1 and choose(study, cells, records).scores[0] is None
    assert choose(study, cells, {}) is None
    # On some of the data sets only, which makes another study; all of them, named, are none.
    text = FILE.replace("datasets: [phantom_ct]", "datasets: [phantom_ct, phantom_mri]")
    fewer = written(folder, text + "tuning_datasets: [phantom_mri]\n")
    assert tuning_cells(fewer, fewer.variants()[0][1], refs) == [[tried[1]] for tried in cells]
    assert fewer.study_hash != study.study_hash
    assert written(folder, text + "tuning_datasets: [phantom_ct, phantom_mri]\n").study_hash == study.study_hash
    # Of equals the first.
    same = {cell.cell_id: {"status": "done", "validation": {"macro_auc_ovr": 0.5}} for tried in cells for cell in tried}
    assert choose(study, cells, same).place == 0


def test_trials_come_first_and_only_fresh_cells_are_judged(folder, capsys):
    assert launch("--dry-run") == 0
    out = capsys.readouterr().out
    assert "trials: 2 variants × 2 recipes × 1 seed × 1 data set = 4, none of which is judged" in out
    assert "= 4; 8 with the trials; 0 done already, 8 to run" in out
    assert launch() == 0
    store = folder / "mlruns"
    manifest = load_manifest(store / "ledger", "study")
    records = read_records(store)[0]
    assert len(records) == 8 and len(manifest["cell_ids"]) == 4
    assert [record["seed"] for record in records[:4]] == 4 * [10_000]
    tuning = manifest["tuning"]
    for variant_id, choice in tuning["choices"].items():
        scores = [
            next(
                r["validation"]["macro_auc_ovr"]
                for r in records
                if (r["variant_id"], r["seed"], r["recipe"]["learning_rate"]) == (variant_id, 10_000, rate)
            )
            for rate in (1e-8, 2e-3)
        ]
        assert choice["scores"] == scores
        assert choice["recipe"]["learning_rate"] == (1e-8, 2e-3)[scores.index(max(scores))]
        fresh = [r for r in records if r["variant_id"] == variant_id and r["seed"] in (0, 1)]
        assert {r["recipe_id"] for r in fresh} == {choice["recipe_id"]} and len(fresh) == 2
    table = load_ledger(store, study="study")
    assert sorted(table["cell_id"]) == sorted(manifest["cell_ids"])
    page = (store / "reports" / "study" / "report.html").read_text()
    assert "Equal budgets" in page and "Recipes by tuning" in page and "Variants at equal cost" in page
    assert "2 of 2 variants chose an end of a range: beyond it may lie a better value." in page
    # The same command again runs nothing; with a seed more, two cells.
    capsys.readouterr()
    assert launch("--no-report") == 0 and "8 cells, 8 done already" in capsys.readouterr().out
    assert launch("--no-report", "--seeds", "0,1,2") == 0 and "10 cells, 8 done already" in capsys.readouterr().out
    assert len(read_records(store)[0]) == 10


def test_images_on_which_matched_costs_differ_are_told(folder, capsys):
    text = FILE.replace("tolerance: 0.05}", "tolerance: 0.1, image_size: 64}").replace(
        "no scan: {split_ratio: 0}", "no scan: {timm: mambaout_femto, depths: [1, 1, 1, 1]}"
    )
    (folder / "study.yaml").write_text(text)
    assert launch("--dry-run") == 0
    assert "on the study's images the macs are not equal: no scan" in capsys.readouterr().out
