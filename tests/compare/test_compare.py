"""Results of others by the tests of a study: the same numbers, and what such data can claim."""

import csv
import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import Design, write_ledger
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.compare import long
from analysis.compare.__main__ import main
from analysis.compare.cases import case_table
from analysis.compare.reading import Form, read_files
from analysis.compare.write import Asked, compare
from analysis.metrics import METRICS
from analysis.records.ledger import load_ledger
from analysis.records.manifests import load_manifest
from analysis.records.medmnist import write_predictions
from analysis.records.predictions import Predictions, load_probabilities
from analysis.report.write import SEED
from analysis.verdicts.decisions import decide_all

ROOT = Path(__file__).resolve().parents[2]
DEMSAR = ROOT / "analysis" / "selftest" / "data" / "demsar_table6.csv"
SEGMENTATION = Path(__file__).resolve().parent / "data" / "medsegbench_f1.tex"
DESIGN = Design(images=30, datasets=("alpha", "beta"), seeds=(0, 1), contrasts=True)


def pratt_p(differences):
    """The signed-rank p by going through every pattern of signs; zeros take ranks and drop out (Pratt 1959)."""
    differences = np.round(differences, 10)
    ranks = stats.rankdata(np.abs(differences))[differences != 0]
    positive = ranks[differences[differences != 0] > 0].sum()
    signs = np.array(list(itertools.product([0, 1], repeat=len(ranks))))
    sums = signs @ ranks
    return min(1.0, 2 * min((sums <= positive + 1e-9).mean(), (sums >= positive - 1e-9).mean()))


@pytest.fixture(scope="module")
def demsar(tmp_path_factory):
    results = read_files([DEMSAR], Form(("AUC",)))
    return results, compare(results, Asked("table 6", "C4.5"), tmp_path_factory.mktemp("demsar"))


def test_demsars_figures(demsar):
    results, written = demsar
    assert "F(3, 39)" in written.ranks[0] and "(9.28 and 3.69 without correction for ties)" in written.ranks[0]
    # His critical difference at α = .05.
    assert "critical difference of mean ranks: 1.25." in written.ranks[0]
    rows = list(csv.reader((written.page.parent / "tables" / "results_AUC.csv").read_text().splitlines()))
    place = rows[0].index("rank")
    ranks = {row[1]: round(float(row[place]), 3) for row in rows[1:]}
    assert ranks == {"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    table = results.table.pivot(index="dataset", columns="variant_id", values="test.AUC ↑")
    for verdict in written.verdicts:
        assert verdict.p_value == pytest.approx(pratt_p(table[verdict.contrast.against] - table["C4.5"]), abs=1e-12)
    adjusted = multipletests([v.p_value for v in written.verdicts], method="holm")[1]
    assert [v.adjusted_p for v in written.verdicts] == pytest.approx(list(adjusted), abs=1e-12)


def test_the_page_says_what_a_table_of_means_can_claim(demsar):
    _, written = demsar
    text = written.page.read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    for said in (
        "In general, on data sets like these (14 data sets): the signed-rank test over data sets",
        "Nothing about a single data set",
        "All of it is exploratory",
        "Values are shares, as printed.",
        "No margin was named",
        "C4.5+m is better than C4.5 in AUC on data sets like these",
        "14 data sets, means as printed",
    ):
        assert said in words, said
    assert [v.level for v in written.verdicts] == ["in general"] * 3 and all(v.exploratory for v in written.verdicts)
    assert "<strong>" not in text and "seeds × images" not in text and "1 seed" not in words
    pictures = sorted(path.name for path in (written.page.parent / "figures").iterdir())
    assert len(pictures) == 2 * 4 and all(re.fullmatch(r"[\w.-]+", name) for name in pictures)
    assert not written.cases


def test_a_benchmark_of_38_tasks(tmp_path):
    results = read_files([SEGMENTATION], Form(("Dice",)))
    assert len(results.table) == 211 and results.table["test.Dice ↑"].max() < 1
    written = compare(results, Asked("tasks × encoders", "resnet18", margin=0.01), tmp_path)
    table = results.table.pivot(index="dataset", columns="variant_id", values="test.Dice ↑")
    complete = table.dropna()
    expected = stats.friedmanchisquare(*[complete[name] for name in complete])
    assert len(complete) == 21 and f"χ² = {expected.statistic:.2f}" in written.ranks[0]
    assert "over 21 data sets (17 left out for a gap)" in written.ranks[0]
    printed = (tmp_path / "tables" / "results_Dice.md").read_text()
    assert "| busi | 0.674 ± 0.009 |" in printed and "± what was printed beside them" in printed
    outcomes = {v.contrast.against: v.outcome for v in written.verdicts}
    assert outcomes["densenet121"] == "superior" and outcomes["resnet50"] == "equivalent"
    by_method = {v.contrast.against: v for v in written.verdicts}
    # Two one-sided t tests, by scipy.
    differences = (table["resnet50"] - table["resnet18"]).to_numpy()
    sides = [
        stats.ttest_1samp(differences, -0.01, alternative="greater").pvalue,
        stats.ttest_1samp(differences, 0.01, alternative="less").pvalue,
    ]
    assert by_method["resnet50"].equivalence_p == pytest.approx(max(sides))
    assert by_method["mit_b0"].n_datasets == 21


def test_data_sets_of_one_source_count_once(tmp_path, capsys):
    idrib = "idrib_C1,idrib_C2,idrib_C3,idrib_C4"
    command = [str(SEGMENTATION), "--baseline", "resnet18", "--metric", "Dice", "--out", str(tmp_path)]
    assert main([*command, "--source", f"idrib={idrib}", "--source", "isic=isic2016,isic2018"]) == 0
    out = capsys.readouterr().out
    assert "38 data sets of 34 sources" in out and "over 17 sources" in out
    values = read_files([SEGMENTATION], Form(("Dice",))).table
    key = values["dataset"].replace(dict.fromkeys(idrib.split(","), "idrib") | {"isic2016": "isic", "isic2018": "isic"})
    table = values.assign(key=key).pivot_table(index=["key", "dataset"], columns="variant_id", values="test.Dice ↑")
    means = (table["densenet121"] - table["resnet18"]).groupby("key").mean()
    p = stats.wilcoxon(means, method="exact").pvalue
    (sentence,) = (line for line in out.splitlines() if line.startswith("densenet121"))
    assert len(means) == 34 and (f"p = {p:.3f}" in sentence or (p < 0.001 and "p < 0.001" in sentence))
    assert (
        "Sources: idrib_C1, idrib_C2, idrib_C3 and idrib_C4 are one (idrib)" in (tmp_path / "report.html").read_text()
    )
    # The averages of the table are those of sources, too.
    rows = list(csv.DictReader((tmp_path / "tables" / "results_Dice.csv").read_text().splitlines()))
    averages = table["densenet121"].groupby("key").mean()
    (row,) = (row for row in rows if row["variant"] == "densenet121")
    assert float(row["average"]) == pytest.approx(averages.mean())
    assert main([*command, "--source", "isic=isic2019"]) == 2
    assert "--source must name some of abdomenus, " in capsys.readouterr().err


def test_less_is_better_where_it_is_said(demsar, tmp_path):
    results, written = demsar
    errors = results.table.assign(value=1 - results.table["test.AUC ↑"])
    wide = errors.pivot(index="dataset", columns="variant_id", values="value")[results.methods]
    wide.to_csv(tmp_path / "errors.csv")
    other = compare(
        read_files([tmp_path / "errors.csv"], Form(("1 − AUC",), lower_is_better=True)),
        Asked("errors", "C4.5"),
        tmp_path / "out",
    )
    for one, two in zip(written.verdicts, other.verdicts):
        assert two.estimate == pytest.approx(-one.estimate) and two.p_value == one.p_value
        assert two.outcome == one.outcome
        assert two.contrast.metric == "1 − AUC ↓" and "1 − AUC (lower is better)" in two.sentence
    assert "1.96" in other.page.read_text()


def test_a_declared_comparison_is_a_claim(tmp_path):
    results = read_files([DEMSAR], Form(("AUC",)))
    written = compare(results, Asked("table 6", "C4.5", declared="our protocol of May"), tmp_path)
    assert [v.outcome for v in written.verdicts] == ["superior", "inconclusive", "superior"]
    assert not any(v.exploratory for v in written.verdicts)
    text = written.page.read_text()
    assert "according to our protocol of May: nothing here proves it" in text and "<strong>superior</strong>" in text
    assert "**0.820 ▲**" in (tmp_path / "tables" / "results_AUC.md").read_text()


def test_few_data_sets_cannot_show_anything_and_the_page_says_so(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("data,a,b,c\nx,.5,.6,.7\ny,.5,.6,.7\nz,.5,.61,.7\n")
    written = compare(read_files([path], Form()), Asked("few", "a", declared="a protocol"), tmp_path / "out")
    assert all(v.exploratory and v.outcome == "inconclusive" for v in written.verdicts)
    assert "the smallest adjusted p is 0.5: no difference in general can be shown" in written.page.read_text()


def test_views_of_one_collection_count_once(tmp_path):
    """A printed table of MedMNIST: the three views of the abdomen are slices of the same volumes."""
    path = tmp_path / "few.csv"
    path.write_text(
        "data,a,b,c\nPathMNIST,.5,.6,.7\nOrganAMNIST,.5,.6,.7\nOrganCMNIST,.5,.61,.7\nOrganSMNIST,.5,.6,.7\n"
    )
    written = compare(read_files([path], Form()), Asked("few", "a", declared="a protocol"), tmp_path / "out")
    assert [(v.n_datasets, v.n_sources) for v in written.verdicts] == [(4, 2)] * 2
    text = written.page.read_text()
    assert "Sources: OrganAMNIST, OrganCMNIST and OrganSMNIST are one (lits): averaged, they count once." in text
    assert "With 4 data sets of 2 sources and 2 contrasts a metric the smallest adjusted p is 1" in text
    assert "over 2 sources" in written.ranks[0]


def test_without_a_baseline_there_are_ranks_alone(tmp_path, capsys):
    assert main([str(DEMSAR), "--metric", "AUC", "--out", str(tmp_path), "--pdf"]) == 0
    assert (tmp_path / "figures" / "ranks_AUC.pdf").read_bytes()[:4] == b"%PDF"
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and out[0].startswith("AUC: Friedman χ²") and out[1] == f"report  {tmp_path / 'report.html'}"
    assert "No contrast: --baseline NAME" in (tmp_path / "report.html").read_text()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_ledger(tmp_path_factory.mktemp("store"), DESIGN)


def long_file(store, path, *, names=False, groups=False):
    """The predictions of a store as a long CSV file."""
    blocks = []
    table = load_ledger(store)
    order = [*DESIGN.variants]
    table = table.sort_values("variant_label", key=lambda column: column.map(order.index), kind="stable")
    for row in table.to_dict("records"):
        found = load_probabilities(store, row["cell_id"])
        block = pd.DataFrame({f"p_{name}": found.probabilities[:, k] for k, name in enumerate("nbm")}).astype(float)
        block.insert(0, "Image ID", found.ids)
        block.insert(1, "y_true", ["nbm"[k] for k in found.labels] if names else found.labels)
        block = block.assign(Model=row["variant_label"], dataset=row["dataset"], seed=row["seed"])
        blocks.append(block.assign(patient=np.arange(len(block)) // 2) if groups else block)
    # In another order: images are paired by their ids.
    pd.concat(blocks).sample(frac=1, random_state=3).sort_values("Model", kind="stable").to_csv(path, index=False)
    return path


@pytest.mark.parametrize("names", [False, True])
def test_predictions_give_the_verdicts_of_the_study_they_come_from(store, names, tmp_path):
    results = read_files([long_file(store, tmp_path / "long.csv", names=names)], Form())
    assert results.methods == sorted(DESIGN.variants) and len(results.table) == 12
    written = compare(results, Asked("predictions", "baseline", margin=0.02), tmp_path / "out")
    manifest = load_manifest(store, DESIGN.name)
    expected = decide_all(load_ledger(store), manifest, store, rng=np.random.default_rng(SEED))
    found = {(v.contrast.against_label, v.contrast.metric): v for v in written.verdicts}
    for verdict in expected:
        other = found[verdict.contrast.against_label, verdict.contrast.metric]
        for name in ("estimate", "p_value", "adjusted_p", "equivalence_p", "n_datasets", "n_seeds", "n_images"):
            assert getattr(other, name) == pytest.approx(getattr(verdict, name), abs=1e-9), name
        # Drawn in another order, and by other draws.
        assert other.false_claim_probability == pytest.approx(verdict.false_claim_probability, abs=0.05)
        theirs = {row.dataset: row for row in verdict.per_dataset}
        for one in other.per_dataset:
            two = theirs.pop(one.dataset)
            assert one.difference == pytest.approx(two.difference, abs=1e-9)
            # Its ends are drawn, and with two seeds far from sure.
            assert (one.interval.over, one.interval.n) == (two.interval.over, two.interval.n)
        assert not theirs
    text = written.page.read_text()
    sections = ("carried", "verdicts", "results", "differences", "ranks", "classes", "calibration", "confusion")
    for section in (*sections, "decisions", "data"):
        assert f'<section id="{section}"' in text
    assert "seeds and test images drawn anew" in text


def test_one_seed_speaks_of_these_weights_and_groups_are_drawn_together(store, tmp_path):
    table = pd.read_csv(long_file(store, tmp_path / "all.csv", groups=True))
    one = table[(table["seed"] == 0) & (table["dataset"] == "alpha") & (table["Model"] != "split_ratio=1")]
    one.drop(columns="seed").to_csv(tmp_path / "one.csv", index=False)
    written = compare(read_files([tmp_path / "one.csv"], Form()), Asked("one", "baseline"), tmp_path / "out")
    assert {v.level for v in written.verdicts} == {"these weights"}
    assert "groups" in written.verdicts[0].interval.over
    assert "of these weights, test images drawn anew" in written.page.read_text()


def test_cases_have_the_metric_of_every_method(store, tmp_path, capsys):
    path = long_file(store, tmp_path / "long.csv")
    assert main([str(path), "--baseline", "baseline", "--metric", "accuracy", "--out", str(tmp_path / "out")]) == 0
    assert f"cases   {tmp_path / 'out' / 'cases_accuracy.csv'}" in capsys.readouterr().out
    results = read_files([path], Form(("accuracy",)))
    for metric in ("accuracy", "brier"):
        cases = pd.read_csv(tmp_path / "out" / f"cases_{metric}.csv")
        assert list(cases)[:5] == ["dataset", "seed", "case", "label", "group"] and len(cases) == 2 * 2 * 30
        means = cases.groupby(["dataset", "seed"])[results.methods].mean()
        for row in results.table.to_dict("records"):
            mean = means.loc[(row["dataset"], row["seed"]), row["variant_id"]]
            assert mean == pytest.approx(row[f"test.{metric}"], abs=1e-9)


def test_a_method_without_a_seed_has_no_case_there():
    found = Predictions(np.array([[0.3, 0.7], [0.6, 0.4]]), np.array([1, 1]), np.array(["a", "b"]), None)
    turned = Predictions(found.probabilities[::-1], found.labels[::-1], found.ids[::-1], None)
    cells = {("one", "x", 0): found, ("two", "x", 0): turned, ("one", "x", 1): found}
    table = case_table(cells, "accuracy")
    assert table["one"].tolist() == [1, 0, 1, 0]
    assert table["two"].tolist()[:2] == [1, 0] and table["two"].isna().tolist() == [False, False, True, True]


def test_medmnists_files_are_compared(store, tmp_path):
    table = load_ledger(store)
    for dataset in DESIGN.datasets:
        labels = load_probabilities(store, table.query("dataset == @dataset")["cell_id"].iloc[0]).labels
        np.savez(tmp_path / f"{dataset}.npz", test_labels=labels[:, None])
    for row in table.to_dict("records"):
        folder = tmp_path / row["variant_label"].replace("=", "")
        write_predictions(folder, row["dataset"], load_probabilities(store, row["cell_id"]), run=row["seed"])
    folders = [tmp_path / name for name in ("baseline", "split_ratio0")]
    results = read_files(folders, Form(labels=tmp_path))
    assert results.methods == ["baseline", "split_ratio0"] and set(results.table["seed"]) == {0, 1}
    expected = table.set_index(["variant_label", "dataset", "seed"])["test.macro_f1"]
    for row in results.table.query("variant_id == 'baseline'").to_dict("records"):
        assert row["test.macro_f1"] == pytest.approx(expected["baseline", row["dataset"], row["seed"]], abs=1e-6)
    with pytest.raises(ValueError, match="--labels must name the folder of MedMNIST's npz files"):
        read_files(folders, Form())


def test_a_long_file_of_values_keeps_its_seeds(tmp_path):
    path = tmp_path / "all.csv"
    rng = np.random.default_rng(0)
    rows = [(d, m, s, i, 90 + rng.normal()) for d in "abcdefg" for m in "xy" for s in (0, 42) for i in range(3)]
    table = pd.DataFrame(rows, columns=["DATASET", "ENCODER_NAME", "SEED", "image", "IOU"]).assign(PREC=0.5)
    table.to_csv(path, index=False)
    results = read_files([path], Form(("IoU",)))
    means = table.groupby(["ENCODER_NAME", "DATASET", "SEED"])["IOU"].mean() / 100
    for row in results.table.to_dict("records"):
        assert row["test.IoU ↑"] == pytest.approx(means[row["variant_id"], row["dataset"], row["seed"]])
    (verdict,) = compare(results, Asked("iou", "x"), tmp_path / "out").verdicts
    assert (verdict.n_seeds, verdict.n_images, verdict.level) == (2, 0, "in general")
    with pytest.raises(ValueError, match="--metric must name one of the columns IOU, PREC, got 'none'"):
        read_files([path], Form())


def test_headings_are_known_however_they_are_spelt():
    assert long.known_columns(["Image ID", "y_true", "Model-Name", "data_set", "Fold", "x"]) == {
        "id": "Image ID", "label": "y_true", "model": "Model-Name", "dataset": "data_set", "seed": "Fold",
    }  # fmt: skip


PAIR = "id,label,model,dataset,p0,p1\n1,0,a,x,.6,.4\n2,1,a,x,.3,.7\n1,0,b,x,.7,.3\n2,1,b,x,.2,.8\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, (), "must be a file of results, or a folder of prediction files, got nothing there"),
        ("data,a\nx,.5\n", (), "a comparison must have two methods at least, got a"),
        ("data,a,b\nx,.5,.6\n", ("--baseline", "c"), "--baseline must be one of a, b, got 'c'"),
        ("data,a,b\nx,.5,6\n", ("--unit", "share"), "values must be of the unit share, got 0.5 to 6"),
        (PAIR.replace("2,1,b", "2,0,b"), (), "b on x must have the labels of a, got 0 for image 2 in place of 1"),
        (PAIR.replace("2,1,b", "3,1,b"), (), "b on x must have the images of a, got 2 that only one has, such as 2"),
        (PAIR.replace("2,1,b", "1,1,b"), (), "ids must differ from each other, got 1 repeats"),
        (PAIR.replace(".2,.8", ".2,.9"), (), "b on x (seed 0): probabilities must sum to 1"),
        (PAIR.replace(".2,.8", ".2,"), (), "class probabilities must be numbers for every image, got others"),
        (PAIR.replace("p1", "confidence"), (), "must be class probabilities (p_NAME, prob_0 …), got confidence"),
        (PAIR.replace("2,1,b", "2,dog,b"), (), "labels must be class numbers or one of 0, 1, got 'dog'"),
        (PAIR, ("--metric", "dice"), "--metric must be one of macro_f1, "),
    ],
)
def test_what_cannot_be_compared_is_one_line(text, options, message, tmp_path, capsys):
    path = tmp_path / "results.csv"
    if text is not None:
        path.write_text(text)
    assert main([str(path), *options, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out" / "report.html").exists()


def test_files_that_do_not_fit_together_are_one_line(tmp_path):
    one, two, three = (tmp_path / f"{name}.csv" for name in "abc")
    one.write_text("data,a,b\nx,.5,.6\n")
    two.write_text("data,b,c\nx,.5,.6\n")
    three.write_text(PAIR)
    with pytest.raises(ValueError, match="every method and data set must be in one file, got b on x again"):
        read_files([one, two], Form())
    with pytest.raises(ValueError, match="must all hold predictions of images, or all values, got both"):
        read_files([one, three], Form())


def test_the_defaults_are_metrics():
    from analysis.compare.reading import METRICS_OF_PREDICTIONS

    assert set(METRICS_OF_PREDICTIONS) <= set(METRICS)
