"""Verdicts count sources: files of one are averaged, the test, its smallest p and its words say so."""

import dataclasses
import json
import re

import numpy as np
import pytest
from ledger_fixture import Design, write_ledger
from tables_fixture import ABOVE, contrast, table_of

from analysis.across.mean_tests import t_over_means
from analysis.across.rank_tests import signed_rank
from analysis.hashes import declaration_hash
from analysis.records.ledger import load_ledger, load_manifest
from analysis.records.manifests import read_manifest
from analysis.report.write import write_report
from analysis.selftest.simulation import Design as Simulated
from analysis.selftest.simulation import design_of, simulate_cells, simulate_mixed
from analysis.verdicts.decisions import decide, decide_all

# Eight files of six sources.
SIX = {f"d{i}": f"s{min(i, 5)}" for i in range(8)}


def test_files_of_one_source_are_averaged_before_anything_is_tested():
    table = table_of(ABOVE)
    table["source_key"] = table["dataset"].map(SIX)
    found = decide(table, contrast())
    means = [*ABOVE[:5], np.mean(ABOVE[5:])]
    assert (found.n_datasets, found.n_sources) == (8, 6)
    assert found.p_value == signed_rank(means, zeros="pratt").p_value == 2 / 2**6
    expected = t_over_means(means).interval
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))
    assert (found.interval.over, found.interval.n) == ("sources", 6)
    assert found.estimate == pytest.approx(np.mean(means)) and len(found.per_dataset) == 8
    assert found.location.interval.over == found.mixed.interval.over == "sources"
    assert "sources: d5, d6 and d7 are one (s5): averaged, they count once" in found.notes
    assert "8 data sets of 6 sources" in found.sentence and "over means of sources (exact" in found.sentence
    assert "8 data sets of 6 sources" in found.line
    alone = decide(table_of(ABOVE), contrast())
    assert alone.n_sources == 8 and alone.interval.over == "data sets" and "source" not in alone.sentence


def test_eight_files_of_five_sources_cannot_reach_what_eight_data_sets_can():
    table = table_of(ABOVE)
    table["source_key"] = table["dataset"].map(lambda name: f"s{int(name[1]) % 5}")
    found = decide(table, contrast())
    assert found.exploratory and found.p_value == 0.0625
    assert found.reasons == (
        "a difference in general cannot reach α = 0.05 with 8 data sets of 5 sources (smallest adjusted p 0.0625)",
    )


def test_eight_files_of_six_sources_claim_falsely_no_more_often_than_alpha():
    """No true difference, and what suits a variant on one file of a source suits it on all: rate at most .06.

    Counted as eight, the same data would claim too much.
    """
    found = simulate_cells(Simulated(n_datasets=6, n_files=8), rng=np.random.default_rng(0), simulations=1000)
    rates = {rate.name.partition(":")[0]: rate.value for rate in found if not rate.name.startswith("not used")}
    assert rates["signed-rank test over data-set means"] <= 0.06
    assert rates["two one-sided tests at the margin"] <= 0.06
    wrong = next(rate.value for rate in found if "as if each were a source" in rate.name)
    assert wrong > 0.06
    assert all(rate.holds for rate in found)
    (mixed,) = simulate_mixed(Simulated(n_datasets=6, n_files=8), rng=np.random.default_rng(0), simulations=40)
    assert mixed.holds


WHOLE = Design(
    metrics=("macro_f1",), images=40, datasets=("busi", "breastmnist", "c", "d", "e", "f", "g"), seeds=(0, 1),
    against=["split_ratio=0"],
)  # fmt: skip


def with_sources(store, design, keys, named=None):
    """The store with a study whose manifest has these sources; `named`: those that its own file names."""
    path = store / "ledger" / "studies" / f"{design.study_hash}.json"
    manifest = json.loads(path.read_text()) | {"source_keys": keys}
    if named:
        hashed = declaration_hash(manifest["contrasts"], 0.05, "holm", named)
        manifest |= {"sources": named, "contrasts_hash": hashed}
    path.write_text(json.dumps(manifest))
    return store


def test_a_report_says_which_data_sets_count_once(tmp_path):
    store = with_sources(write_ledger(tmp_path, WHOLE), WHOLE, {"busi": "busi", "breastmnist": "busi"})
    page = write_report(store, WHOLE.name).page.read_text()
    assert "ources: busi and breastmnist are one (busi): averaged, they count once" in page
    assert "7 of 6 sources" in page and "over sources" in page and re.search(r"\b7\s\(6\)", page)
    design, _ = design_of(load_manifest(store, WHOLE.name), load_ledger(store, study=WHOLE.name))
    assert (design.n_datasets, design.n_files) == (6, 7)


def test_a_study_of_separate_sources_says_nothing_of_them(tmp_path):
    page = write_report(write_ledger(tmp_path, WHOLE), WHOLE.name).page.read_text()
    assert "count once" not in page and "sources" not in page


def verdict(store, name=WHOLE.name):
    table, manifest = load_ledger(store, study=name), load_manifest(store, name)
    return decide_all(table, manifest, store, rng=np.random.default_rng(0), draws=20)[0]


def test_sources_that_are_named_after_a_look_do_not_judge_what_ran_before(tmp_path):
    """Seven data sets reach α; a file that afterwards parts two of one source is judged as it was declared."""
    store = with_sources(write_ledger(tmp_path, WHOLE), WHOLE, {"busi": "s", "breastmnist": "s", "c": "s"})
    assert verdict(store).n_sources == 5 and verdict(store).exploratory
    later = dataclasses.replace(WHOLE, name="later")
    (store / "ledger" / "studies" / f"{later.study_hash}.json").write_text(
        json.dumps(load_manifest(store, WHOLE.name) | {"name": "later", "study_hash": later.study_hash})
    )
    named = {"busi": "one", "breastmnist": "two", "c": "three"}
    with_sources(store, later, named, named)
    found = verdict(store, "later")
    assert found.n_sources == 5 and found.exploratory
    assert "source of busi s (now one)" in next(note for note in found.notes if "judged as declared" in note)


def test_named_sources_are_held_by_the_hash(tmp_path):
    store = with_sources(write_ledger(tmp_path, WHOLE), WHOLE, {}, {"busi": "s"})
    path = store / "ledger" / "studies" / f"{WHOLE.study_hash}.json"
    assert read_manifest(path)["sources"] == {"busi": "s"}
    path.write_text(path.read_text().replace('"sources": {"busi": "s"}', '"sources": {"busi": "t"}'))
    with pytest.raises(ValueError, match="contrasts, alpha, correction and sources must be those"):
        read_manifest(path)
