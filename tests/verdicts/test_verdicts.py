"""What contrasts end as: each outcome, each level, each reason to be no more than exploratory, and bad input."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import Design, manifest, write_ledger
from scipy import stats
from tables_fixture import ABOVE, HASH, contrast, table_of

from analysis.across.mean_tests import t_over_means, tost
from analysis.across.mixed import mixed_model
from analysis.across.multiplicity import adjust
from analysis.across.rank_tests import hodges_lehmann, signed_rank
from analysis.hashes import declaration_hash
from analysis.paired import delong, two_level_bootstrap
from analysis.records.ledger import load_ledger, load_manifest
from analysis.records.predictions import load_probabilities, paired_predictions
from analysis.report.tables.verdicts import verdict_table
from analysis.verdicts.decisions import decide, decide_all
from analysis.verdicts.declared import Contrast, read_declaration
from analysis.verdicts.judgement import IN_GENERAL, THESE_WEIGHTS, THIS_DATA_SET, on_dataset

DRAWS = 200
SMALL = Design(images=40, datasets=("alpha", "beta", "gamma"), seeds=(0, 1))


def rng():
    return np.random.default_rng(0)


ASKED = {"name": "b against a", "baseline": "a", "against": "b", "metric": "macro_f1"}
AROUND = (0.002, -0.001, 0.003, -0.002, 0.001, -0.003, 0.0015, -0.0015)
WIDE = (0.2, -0.1, 0.05, -0.15, 0.1, -0.02, 0.03, -0.08)


@pytest.mark.parametrize(
    ("differences", "metric", "outcome"),
    [
        (ABOVE, "macro_f1", "superior"),
        (np.negative(ABOVE), "macro_f1", "inferior"),
        (ABOVE, "ece", "inferior"),
        (np.negative(ABOVE), "brier", "superior"),
        (AROUND, "macro_f1", "equivalent"),
        (WIDE, "macro_f1", "inconclusive"),
        # Clearly there, and too small to count.
        (np.array(ABOVE) / 10, "macro_f1", "equivalent"),
        ((0.0,) * 8, "macro_f1", "equivalent"),
    ],
)
def test_outcomes_in_general(differences, metric, outcome):
    verdict = decide(table_of(differences, metric=metric), contrast(metric=metric))
    assert (verdict.outcome, verdict.level, verdict.exploratory) == (outcome, IN_GENERAL, False)
    assert verdict.estimate == pytest.approx(np.mean(differences))
    assert verdict.p_value == verdict.adjusted_p == signed_rank(differences, zeros="pratt").p_value
    assert verdict.equivalence_p == pytest.approx(tost(differences, 0.02).p_value, abs=1e-9)
    expected = t_over_means(differences).interval
    assert (verdict.interval.low, verdict.interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (verdict.interval.over, verdict.interval.n, verdict.interval.level) == ("data sets", 8, 0.95)
    assert (verdict.n_datasets, verdict.n_seeds, verdict.n_images, verdict.cost_ratio) == (8, 2, 800, 1.5)


def test_without_a_margin_nothing_is_equivalent():
    assert decide(table_of(AROUND), contrast(margin=0.0)).outcome == "inconclusive"


def test_a_mean_against_its_ranks_decides_nothing():
    differences = [*(0.01 + 0.0001 * i for i in range(20)), -0.9]
    verdict = decide(table_of(differences), contrast(margin=0.005))
    assert verdict.p_value < 0.05 and verdict.estimate < 0 < verdict.rank_effect
    assert verdict.outcome == "inconclusive"


def test_a_mixed_model_of_the_compared_variants_stands_beside(tmp_path):
    verdicts = decided(write_ledger(tmp_path, SMALL))
    table = load_ledger(tmp_path)
    for verdict in verdicts:
        asked = verdict.contrast
        model = mixed_model(table, asked.metric, macs=False, reference=asked.baseline)
        assert verdict.mixed.estimate == pytest.approx(
            model.difference(asked.baseline, asked.against).estimate, abs=1e-6
        )
        assert verdict.mixed.estimate == pytest.approx(verdict.estimate, abs=1e-6), "a complete design averages alike"
    one = decide(table[table["dataset"] == "alpha"], verdicts[0].contrast)
    assert one.mixed is None


def test_seeds_are_averaged_before_data_sets_are_counted():
    # Many seeds make no data sets: the p value and the interval are those of the means.
    few, many = (decide(table_of(ABOVE, seeds=n, noise=0.1), contrast()) for n in (2, 10))
    assert (few.p_value, few.interval.n) == (many.p_value, many.interval.n)
    assert few.interval.low == pytest.approx(many.interval.low)


def test_only_seeds_that_both_finished_are_paired():
    table = table_of(ABOVE, seeds=3, noise=0.05)
    table.loc[(table["cell_id"] == "b12") | (table["cell_id"] == "a11"), "status"] = "failed"
    table = table[~((table["dataset"] == "d7") & (table["variant_id"] == "b"))]
    verdict = decide(table, contrast())
    assert (verdict.n_datasets, verdict.n_seeds) == (7, 1)
    assert [part.n_seeds for part in verdict.per_dataset] == [3, 1, 3, 3, 3, 3, 3]
    assert verdict.per_dataset[1].difference == pytest.approx(ABOVE[1] - 0.05)
    assert verdict.notes[0] == "without a pair of finished cells: seeds 1, 2 on d1; all seeds on d7"


def test_a_missing_metric_is_a_missing_cell():
    table = table_of(ABOVE)
    table.loc[table["dataset"] == "d0", "test.macro_f1"] = math.nan
    assert decide(table, contrast()).n_datasets == 7


@pytest.mark.parametrize("absent", ["a", "b"])
def test_a_variant_without_cells_is_inconclusive_and_says_so(absent):
    table = table_of(ABOVE)
    verdict = decide(table[table["variant_id"] != absent], contrast())
    assert verdict.outcome == "inconclusive" and math.isnan(verdict.estimate) and verdict.per_dataset == ()
    assert "b and a cannot be compared: no seed of any data set has a result of both." in verdict.sentence
    assert "no seed of any data set has a result" in verdict.line
    assert verdict.exploratory, "nothing is confirmed by nothing"


def test_a_design_that_cannot_reach_alpha_is_exploratory_and_says_why():
    for count, exploratory in ((5, True), (6, False)):
        verdict = decide(table_of(ABOVE[:count]), contrast())
        assert verdict.exploratory is exploratory
    reason = "a difference in general cannot reach α = 0.05 with 5 data sets (smallest adjusted p 0.0625)"
    assert decide(table_of(ABOVE[:5]), contrast()).reasons == (reason,)
    assert f"Exploratory: {reason}" in decide(table_of(ABOVE[:5]), contrast()).sentence


def test_what_nobody_declared_is_exploratory():
    verdict = decide(table_of(ABOVE), contrast(contrasts_hash=None))
    assert verdict.exploratory and verdict.reasons == ("it was not declared",)
    assert verdict.outcome == "superior" and "superior (exploratory)" in verdict.line
    assert decide(table_of(ABOVE), {"name": "n", "baseline": "a", "against": "b", "metric": "macro_f1"}).exploratory
    declared_so = decide(table_of(ABOVE), contrast(kind="exploratory"))
    assert declared_so.exploratory and declared_so.reasons == ("it was declared so",)


def test_cells_of_another_declaration_are_named_and_make_it_exploratory():
    table = table_of(ABOVE)
    table.loc[table["cell_id"].isin(["b30", "b31", "b50"]), "contrasts_hash"] = "older"
    verdict = decide(table, contrast())
    reason = "cells of b ran under another declaration (older: d3 seeds 0, 1; d5 seed 0)"
    assert verdict.exploratory and verdict.reasons == (reason,)
    table["contrasts_hash"] = None
    assert "(none: d0 seeds 0, 1; " in decide(table, contrast()).reasons[0]


def test_a_baseline_may_be_shared_and_is_told():
    table = table_of(ABOVE)
    table.loc[table["variant_id"] == "a", "contrasts_hash"] = "split"
    verdict = decide(table, contrast())
    assert not verdict.exploratory and verdict.outcome == "superior"
    assert verdict.notes[0].startswith("cells of the baseline a ran under another declaration (split: d0 seeds 0, 1;")
    assert "; 5 more data sets)" in verdict.notes[0]


# ---- families, from manifests


def manifest_of(contrasts, **changes):
    values = [
        {k: getattr(c, k) for k in ("name", "baseline", "against", "metric", "margin", "family", "kind")}
        for c in contrasts
    ]
    return {"contrasts_hash": HASH, "alpha": 0.05, "correction": "holm", "contrasts": values} | changes


def family_table():
    tables = []
    for variant, differences in (("b", ABOVE), ("c", AROUND), ("d", WIDE)):
        table = table_of(differences)
        table = table[table["variant_id"] == "b"].replace({"variant_id": {"b": variant}})
        tables.append(table.assign(cell_id=variant + table["cell_id"]))
    base = table_of(ABOVE)
    return pd.concat([base[base["variant_id"] == "a"], *tables], ignore_index=True)


@pytest.mark.parametrize("correction", ["holm", "bh", "none"])
def test_families_share_a_correction(tmp_path, correction):
    asked = [contrast(name=v, against=v, family="one") for v in "bcd"]
    asked.append(contrast(name="alone", against="b", family="two"))
    write_ledger(tmp_path, SMALL)
    verdicts = decide_all(family_table(), manifest_of(asked, correction=correction), tmp_path, rng=rng())
    assert [v.contrast.name for v in verdicts] == ["b", "c", "d", "alone"]
    p_values = [signed_rank(d, zeros="pratt").p_value for d in (ABOVE, AROUND, WIDE)]
    assert [v.adjusted_p for v in verdicts] == [*adjust(p_values, correction), p_values[0]]
    within = [tost(d, 0.02).p_value for d in (ABOVE, AROUND, WIDE)]
    assert [v.adjusted_equivalence_p for v in verdicts[:3]] == pytest.approx(adjust(within, correction), abs=1e-9)
    assert [v.outcome for v in verdicts] == ["superior", "equivalent", "inconclusive", "superior"]
    assert [v.family_size for v in verdicts] == [3, 3, 3, 1]


def test_a_large_family_takes_a_claim_away_and_what_failed_still_counts(tmp_path):
    write_ledger(tmp_path, SMALL)
    asked = [contrast(name="b", against="b")] + [contrast(name=str(i), against=f"absent{i}") for i in range(7)]
    first, *others = decide_all(family_table(), manifest_of(asked), tmp_path, rng=rng())
    assert first.adjusted_p == 8 * first.p_value > 0.05 and first.outcome == "inconclusive"
    assert first.reasons == (
        "a difference in general cannot reach α = 0.05 with 8 data sets (smallest adjusted p 0.0625)",
    )
    assert all(math.isnan(v.estimate) and v.outcome == "inconclusive" for v in others)


def test_kinds_of_a_family_are_corrected_apart(tmp_path):
    write_ledger(tmp_path, SMALL)
    asked = [contrast(name="b"), *(contrast(name=v, against=v, kind="exploratory") for v in "cd")]
    verdicts = decide_all(family_table(), manifest_of(asked), tmp_path, rng=rng())
    assert [v.family_size for v in verdicts] == [1, 2, 2]
    assert [v.exploratory for v in verdicts] == [False, True, True]


def test_the_declaration_of_the_cells_holds_not_todays_file(tmp_path):
    """A margin that was widened after the fact changes nothing; what the old declaration did not ask is exploratory."""
    write_ledger(tmp_path, SMALL)
    studies = tmp_path / "ledger" / "studies"
    old = manifest_of([contrast(name=v, against=v, margin=0.0005) for v in "bc"], alpha=0.04)
    older = old["contrasts_hash"] = declaration_hash(old["contrasts"], 0.04, "holm")
    (studies / "0123.json").write_text(json.dumps(old), encoding="utf-8")
    table = family_table().assign(contrasts_hash=older)
    today = manifest_of([contrast(name=v, against=v) for v in "bcd"])
    verdicts = decide_all(table, today, tmp_path, rng=rng())
    assert [v.contrast.margin for v in verdicts] == [0.0005, 0.0005, 0.02]
    assert [v.alpha for v in verdicts] == [0.04, 0.04, 0.05]
    assert [v.family_size for v in verdicts] == [2, 2, 3]
    assert [v.outcome for v in verdicts] == ["superior", "inconclusive", "inconclusive"]
    assert [v.exploratory for v in verdicts] == [False, False, True]
    told = f"judged as declared when its cells ran ({older}): margin 0.0005 (now 0.02), α 0.04 (now 0.05), "
    assert verdicts[0].notes[0] == told + "contrasts in its family 2 (now 3)"
    assert verdicts[2].reasons[0].startswith(f"cells of d ran under another declaration ({older}: ")
    # Without the old manifest nobody knows what was declared.
    (studies / "0123.json").unlink()
    assert all(v.exploratory for v in decide_all(table, today, tmp_path, rng=rng()))


def test_what_todays_file_no_longer_asks_still_counts_in_the_family(tmp_path):
    """Contrasts taken out of the study file after the cells ran make no p value of the others smaller."""
    studies = write_ledger(tmp_path, SMALL) / "ledger" / "studies"
    old = manifest_of([contrast(name=v, against=v) for v in "bcd"])
    older = old["contrasts_hash"] = declaration_hash(old["contrasts"], 0.05, "holm")
    (studies / "0123.json").write_text(json.dumps(old), encoding="utf-8")
    table = family_table().assign(contrasts_hash=older)
    (verdict,) = decide_all(table, manifest_of([contrast(name="b", against="b")]), tmp_path, rng=rng())
    assert verdict.family_size == 3
    assert verdict.adjusted_p == 3 * verdict.p_value
    (narrow,) = decide_all(table, manifest_of([contrast(name="c", against="c")]), tmp_path, rng=rng())
    assert narrow.outcome == "equivalent" and narrow.adjusted_equivalence_p == 3 * narrow.equivalence_p


def test_a_contrast_alone_is_the_one_that_its_hash_declares(tmp_path):
    write_ledger(tmp_path, SMALL)
    table, declared = load_ledger(tmp_path), SMALL.contrasts_hash
    first = Contrast.from_dict(manifest(SMALL)["contrasts"][0], declared)
    verdict = decide(table, dataclasses.replace(first, margin=0.9))
    assert verdict.contrast == first and verdict.outcome != "equivalent"
    assert verdict.notes == ("judged by the declared margin 0.02, not 0.9",)
    assert verdict.reasons[0] == "p values are not adjusted for the 1 other contrast of its family"
    assert decide(table, first).notes == ()
    # Its hash is on the records, but it declares other metrics.
    unasked = decide(table, dataclasses.replace(first, metric="accuracy"))
    assert unasked.exploratory and unasked.reasons[0] == f"its declaration ({declared}) does not ask it"


def test_a_contrast_alone_is_judged_as_declared_or_exploratory(tmp_path):
    """Neither the declared α nor the correction of its family is lost by asking for one contrast."""
    studies = write_ledger(tmp_path, SMALL) / "ledger" / "studies"

    def stored(names, correction="holm"):
        found = manifest_of([contrast(name=v, against=v, margin=0.0) for v in names], alpha=0.01, correction=correction)
        found["contrasts_hash"] = declaration_hash(found["contrasts"], 0.01, correction)
        (studies / "0123.json").write_text(json.dumps(found), encoding="utf-8")
        return {"contrast": contrast(contrasts_hash=found["contrasts_hash"]), "folder": tmp_path}

    def table(asked):
        return family_table().assign(contrasts_hash=asked["contrast"].contrasts_hash)

    one = stored("b")
    verdict = decide(table(one), **one)
    assert (verdict.alpha, verdict.outcome, verdict.exploratory) == (0.01, "superior", False)
    verdict = decide(table(one), **one, alpha=0.05)
    assert (verdict.alpha, verdict.outcome, verdict.exploratory) == (0.05, "superior", True)
    assert verdict.reasons == ("judged at α = 0.05 in place of the declared 0.01",)
    family = stored("bcd")
    verdict = decide(table(family), **family)
    assert verdict.exploratory
    assert verdict.reasons == ("p values are not adjusted for the 2 other contrasts of its family",)
    uncorrected = stored("bcd", "none")
    assert not decide(table(uncorrected), **uncorrected).exploratory


# ---- predictions: one data set, one seed


def decided(store, design=None, **options):
    name = (design or SMALL).name
    found = load_manifest(store, name)
    return decide_all(load_ledger(store, study=name), found, store, rng=rng(), draws=DRAWS, **options)


def by_name(verdicts):
    return {verdict.contrast.name: verdict for verdict in verdicts}


def test_each_data_set_has_its_own_interval(tmp_path):
    verdicts = decided(write_ledger(tmp_path, SMALL))
    assert [v.contrast.name for v in verdicts] == [c["name"] for c in manifest(SMALL)["contrasts"]]
    for verdict in verdicts:
        assert verdict.level == IN_GENERAL and 0 < verdict.false_claim_probability <= 1
        assert [part.dataset for part in verdict.per_dataset] == ["alpha", "beta", "gamma"]
        for part in verdict.per_dataset:
            assert part.difference in part.interval and part.interval.over == "seeds and test images"
            assert (part.n_seeds, part.n_images) == (2, 40)


def test_one_data_set_is_judged_over_seeds_and_images(tmp_path):
    design = dataclasses.replace(SMALL, datasets=("alpha",), seeds=(0, 1, 2), images=60)
    store = write_ledger(tmp_path, design)
    verdict = by_name(decided(store))["split_ratio=0 (macro_auc_ovr)"]
    cells = [[design.cell_id(v, "alpha", s) for s in design.seeds] for v in ("baseline", "split_ratio=0")]
    pairing = paired_predictions(store, *cells)
    expected = two_level_bootstrap(
        "macro_auc_ovr", pairing.labels, pairing.against, pairing.baseline, rng=rng(), draws=4000
    )
    assert verdict.level == THIS_DATA_SET and verdict.interval.over == "seeds and test images"
    assert verdict.estimate == pytest.approx(expected.difference)
    assert verdict.interval.low == pytest.approx(expected.interval.low, abs=0.03)
    assert verdict.per_dataset[0].interval == verdict.interval
    assert (verdict.n_datasets, verdict.n_seeds, verdict.n_images) == (1, 3, 60)
    assert verdict.exploratory and "cannot reach α = 0.05 with 1 data set " in verdict.reasons[0]
    assert "on alpha, which says nothing of other data sets" in verdict.sentence


def test_one_seed_of_one_data_set_is_judged_by_delong(tmp_path):
    design = dataclasses.replace(SMALL, datasets=("alpha",), seeds=(3,), images=80)
    store = write_ledger(tmp_path, design)
    verdicts = by_name(decided(store))
    verdict = verdicts["split_ratio=0 (macro_auc_ovr)"]
    base, against = (load_probabilities(store, design.cell_id(v, "alpha", 3)) for v in ("baseline", "split_ratio=0"))
    expected = delong(base.labels, against.probabilities, base.probabilities)
    assert verdict.level == THESE_WEIGHTS and verdict.test == "DeLong's test"
    assert verdict.estimate == pytest.approx(expected.difference)
    assert verdict.p_value == expected.p_value and verdict.interval == expected.interval
    assert "for these two sets of weights on alpha" in verdict.sentence
    drawn = verdicts["split_ratio=0 (macro_f1)"]
    assert drawn.level == THESE_WEIGHTS and drawn.test == "paired bootstrap over test images"
    assert drawn.interval.over == "test images" and 0 < drawn.p_value <= 1
    # DeLong draws nothing.
    alone = decide(load_ledger(store), verdict.contrast)
    assert alone.p_value == verdict.p_value
    assert math.isnan(decide(load_ledger(store), drawn.contrast).p_value)


def test_equivalence_over_seeds_has_seeds_minus_1_degrees_of_freedom(tmp_path):
    design = dataclasses.replace(SMALL, datasets=("alpha",), seeds=(0, 1, 2), images=200, margin=0.1)
    store = write_ledger(tmp_path, design)
    cells = [[design.cell_id(v, "alpha", s) for s in design.seeds] for v in ("baseline", "split_ratio=1")]
    pairing = paired_predictions(store, *cells)
    found = on_dataset("macro_f1", 0.1, pairing, rng=rng(), draws=DRAWS)
    drawn = two_level_bootstrap("macro_f1", pairing.labels, pairing.against, pairing.baseline, rng=rng(), draws=DRAWS)
    room = (0.1 - abs(drawn.difference)) / drawn.standard_error
    assert found.equivalence_p == pytest.approx(stats.t.sf(room, 2), rel=1e-9)
    assert 0.001 < found.equivalence_p < 0.5, "a number of degrees of freedom makes a difference here"
    # Where the level is that of the p found, one end lies on the margin.
    interval = found.equivalence_interval(drawn.difference, found.equivalence_p)
    assert max(-interval.low, interval.high) == pytest.approx(0.1)
    assert (interval.over, interval.n) == ("seeds and test images", 3)


def test_delong_of_grouped_images_is_that_of_the_groups(tmp_path):
    design = dataclasses.replace(SMALL, datasets=("alpha",), seeds=(3,), images=80, groups=True)
    store = write_ledger(tmp_path, design)
    verdict = by_name(decided(store))["split_ratio=0 (macro_auc_ovr)"]
    base, against = (load_probabilities(store, design.cell_id(v, "alpha", 3)) for v in ("baseline", "split_ratio=0"))
    grouped, alone = (
        delong(base.labels, against.probabilities, base.probabilities, groups=groups) for groups in (base.groups, None)
    )
    assert (verdict.p_value, verdict.interval) == (grouped.p_value, grouped.interval)
    assert verdict.p_value != alone.p_value and verdict.interval.over == "groups of test images"


def test_groups_are_what_is_drawn(tmp_path):
    design = dataclasses.replace(SMALL, datasets=("alpha",), groups=True)
    for verdict in decided(write_ledger(tmp_path, design)):
        assert verdict.interval.over == "seeds and groups of test images"


def test_the_global_seed_has_no_effect_and_rng_is_asked_for(tmp_path):
    store = write_ledger(tmp_path, dataclasses.replace(SMALL, datasets=("alpha",)))
    first = decided(store)
    np.random.seed(7)
    assert decided(store) == first
    table, found = load_ledger(store), load_manifest(store, SMALL.name)
    assert decide_all(table, found, store, rng=np.random.default_rng(5), draws=DRAWS) != first
    with pytest.raises(ValueError, match=r"rng must be a numpy Generator such as np.random.default_rng\(0\), got int"):
        decide_all(table, found, store, rng=0)


# ---- bad input


def test_missing_probabilities_leave_the_verdict_in_general(tmp_path):
    design = dataclasses.replace(SMALL, without_probabilities=[("split_ratio=0", "beta", 1)])
    verdicts = by_name(decided(write_ledger(tmp_path, design)))
    verdict, whole = verdicts["split_ratio=0 (macro_f1)"], verdicts["split_ratio=1 (macro_f1)"]
    assert not math.isnan(verdict.p_value) and math.isnan(verdict.false_claim_probability)
    assert [part.interval.is_defined for part in verdict.per_dataset] == [True, False, True]
    assert verdict.per_dataset[1].n_images == 40
    assert "Without per-image predictions: beta." in verdict.sentence
    assert whole.false_claim_probability > 0 and not any("predictions" in note for note in whole.notes)


def test_missing_probabilities_leave_one_data_set_without_a_test(tmp_path):
    design = dataclasses.replace(SMALL, datasets=("alpha",), without_probabilities=[("baseline", "alpha", 0)])
    for verdict in decided(write_ledger(tmp_path, design)):
        assert verdict.outcome == "inconclusive" and math.isnan(verdict.p_value)
        assert "nothing could be tested" in verdict.sentence and not math.isnan(verdict.estimate)


def test_images_that_do_not_match_are_refused(tmp_path):
    store = write_ledger(tmp_path, SMALL)
    path = store / "ledger" / "probabilities" / f"{SMALL.cell_id('split_ratio=1', 'beta', 1)}.npz"
    with np.load(path) as found:
        arrays = dict(found)
    arrays["test_ids"][5] = "stranger"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"test ids and classes must be those of its pair") as caught:
        decided(store)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("metric", ["macro_auc_ovr", "macro_f1"])
def test_predictions_of_another_cell_are_refused(tmp_path, metric):
    """Same images, same labels, same shape: only the record tells whose they are."""
    design = dataclasses.replace(SMALL, metrics=(metric,))
    store = write_ledger(tmp_path, design)
    assert decided(store, design)
    first, second = (
        store / "ledger" / "probabilities" / f"{design.cell_id(label, 'beta', 1)}.npz"
        for label in ("baseline", "split_ratio=0")
    )
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    with pytest.raises(ValueError, match=rf"test probabilities must give the {metric} of the record of cell") as caught:
        decided(store, design)
    assert str(caught.value).startswith(f"{first}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("images", "outcome"), [(40, "inconclusive"), (240, "equivalent")])
def test_identical_variants_have_p_1_and_are_equivalent_where_images_suffice(tmp_path, images, outcome):
    """Forty images that do not tell two models apart leave room for a difference of .02: .98^40 is .45."""
    same = {"baseline": ({}, 1.3, 1.0), "twin": ({"d_state": 9}, 1.3, 1.0)}
    for datasets, seeds in ((("alpha", "beta"), (0,)), (("alpha",), (0, 1)), (("alpha",), (0,))):
        design = dataclasses.replace(SMALL, variants=same, datasets=datasets, seeds=seeds, images=images)
        store = write_ledger(tmp_path / f"{len(datasets)}{len(seeds)}", design)
        ledger = store / "ledger"
        records = [json.loads(line) for line in (ledger / "records.jsonl").read_text().splitlines()]
        base = {(r["dataset"], r["seed"]): r for r in records if r["variant_label"] == "baseline"}
        for record in records:
            twin = base[record["dataset"], record["seed"]]
            record |= {"test": twin["test"], "validation": twin["validation"]}
            arrays = (ledger / twin["probabilities"]).read_bytes()
            (ledger / record["probabilities"]).write_bytes(arrays)
        (ledger / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        for verdict in decided(store):
            assert (verdict.p_value, verdict.estimate, verdict.false_claim_probability) == (1.0, 0.0, 1.0)
            assert verdict.outcome == ("equivalent" if len(datasets) > 1 else outcome)
            if len(datasets) == 1:
                assert verdict.equivalence_p == pytest.approx(0.98**images)


def test_a_constant_predictor_and_an_absent_class_have_verdicts(tmp_path):
    design = dataclasses.replace(SMALL, images=60)
    store = write_ledger(tmp_path, design)
    from analysis.metrics import all_metrics

    ledger = store / "ledger"
    records = [json.loads(line) for line in (ledger / "records.jsonl").read_text().splitlines()]
    for record in records:
        path = ledger / record["probabilities"]
        with np.load(path) as found:
            arrays = dict(found)
        # Class 2 is in no test image.
        keep = arrays["test_labels"] < 2
        arrays |= {name: values[keep] for name, values in arrays.items() if name.startswith("test_")}
        if record["variant_label"] == "split_ratio=0":
            arrays["test_probabilities"][:] = [0.5, 0.3, 0.2]
        np.savez(path, **arrays)
        record["test"] = all_metrics(arrays["test_labels"], arrays["test_probabilities"], record["classes"])
        record["n_test"] = int(keep.sum())
    (ledger / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    verdicts = by_name(decided(store))
    for name in ("split_ratio=0 (macro_auc_ovr)", "split_ratio=0 (macro_f1)"):
        verdict = verdicts[name]
        assert verdict.estimate < -0.1 and verdict.false_claim_probability < 0.01 and verdict.n_images == 3 * 40
        named = "no test image of malignant on alpha; malignant on beta; malignant on gamma"
        others = ", so macro-AUC is over the other classes there" if "auc" in name else ""
        assert verdict.notes == (named + others,)
        assert all(part.interval.high < 0 for part in verdict.per_dataset)


def test_one_class_alone_has_no_auc_and_no_verdict_on_it():
    asked = contrast(metric="macro_auc_ovr")
    verdict = decide(table_of((math.nan,) * 3, metric="macro_auc_ovr"), asked)
    assert verdict.outcome == "inconclusive" and math.isnan(verdict.estimate)
    undefined = "macro-AUC undefined (one class in the test set): all seeds on "
    assert verdict.notes == (undefined + "d0, d1 and d2",), "every cell has finished"
    table = table_of((*ABOVE, math.nan), metric="macro_auc_ovr")
    table.loc[table["cell_id"] == "b01", "status"] = "failed"
    assert decide(table, asked).notes[:2] == (
        "without a pair of finished cells: seed 1 on d0",
        undefined + "d8",
    )


def test_an_empty_ledger_and_a_half_written_record(tmp_path):
    store = write_ledger(tmp_path / "store", SMALL)
    path = store / "ledger" / "records.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-40])
    verdicts = decided(store)
    last = SMALL.datasets[-1]
    assert any(f"seed 1 on {last}" in note for v in verdicts for note in v.notes), "the torn cell is named as missing"
    path.write_text("")
    with pytest.raises(ValueError, match="at least one record, got none"):
        decided(store)
    path.write_text(whole)
    npz = store / "ledger" / "probabilities" / f"{SMALL.cell_id('baseline', 'alpha', 0)}.npz"
    npz.write_bytes(npz.read_bytes()[:100])
    with pytest.raises(ValueError, match="must be a whole npz file"):
        decided(store)


def test_no_contrasts_give_no_verdicts(tmp_path):
    assert decided(write_ledger(tmp_path, dataclasses.replace(SMALL, contrasts=False))) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: contrast(metric="auc"), "contrast.metric must be one of macro_f1, .* got 'auc'"),
        (lambda: contrast(margin=-0.1), "contrast.margin must be between 0 and 1, got -0.1"),
        (lambda: contrast(against="a"), "contrast.against must differ from baseline, got 'a' twice"),
        (lambda: contrast(kind="maybe"), "contrast.kind must be one of confirmatory, exploratory, got 'maybe'"),
        (lambda: Contrast.from_dict({"name": "n"}), "got no baseline, against, metric"),
        (lambda: Contrast.from_dict(ASKED | {"margin": None}), "contrast.margin must be a number, got None"),
        (
            lambda: Contrast.from_dict(ASKED | {"baseline": ["a", "c"]}),
            "contrast.baseline must be one text, got .'a', 'c'",
        ),
        (lambda: read_declaration({"alpha": None}), "manifest.alpha must be between 0 and 0.5, got None"),
        (lambda: read_declaration({"alpha": 0.7}), "manifest.alpha must be between 0 and 0.5, got 0.7"),
        (lambda: read_declaration({"correction": "sidak"}), "manifest.correction must be one of holm, bh, none"),
        (lambda: decide(table_of(ABOVE), contrast(), alpha=1.0), "alpha must be between 0 and 0.5, got 1.0"),
        (lambda: decide(table_of(ABOVE), contrast(metric="mcc")), "metric must be one of macro_f1, got 'mcc'"),
        (lambda: decide(pd.concat([table_of(ABOVE)] * 2), contrast()), "select one recipe"),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# ---- words


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_a_difference_that_is_found_stands_beside_an_interval_without_zero(alpha):
    """The test that found it is one of ranks; the mean's interval may hold 0."""
    differences = [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.3]
    if alpha == 0.2:
        differences[1] = -0.021
    verdict = decide(table_of(differences), contrast(margin=0.0), alpha=alpha)
    assert verdict.outcome == "superior" and 0.0 in verdict.interval
    expected = hodges_lehmann(differences, level=1 - alpha)
    assert verdict.location.estimate == pytest.approx(expected.estimate) and verdict.location.interval.low > 0
    low, high = (f"{end:+.4f}" for end in (expected.interval.low, expected.interval.high))
    level = f"{100 * (1 - alpha):g} % interval, median of pairwise averages of data-set means"
    assert f": {expected.estimate:+.4f} [{low}, {high}] ({level}; 8 data sets" in verdict.sentence
    assert "over data sets (median of pairwise averages)" in verdict.line
    # The table shows the same estimate; its data keep the mean, and it says why that one's interval may hold 0.
    table = verdict_table([verdict], {"alpha": alpha, "correction": "none"})
    assert table.rows[0][3:5] == [f"{expected.estimate:+.4f}", f"[{low}, {high}]"]
    assert table.data["estimate"][0] == pytest.approx(np.mean(differences)) and "which may hold 0" in table.caption


def test_the_mean_is_stated_where_it_decides_and_where_ranks_can_not():
    equivalent = decide(table_of(AROUND), contrast())
    few = decide(table_of(ABOVE[:5]), contrast())
    for verdict, interval in ((equivalent, equivalent.equivalence_interval), (few, few.interval)):
        stated = f"{verdict.estimate + 0.0:+.4f} [{interval.low:+.4f}".replace("-", "−")
        assert stated in verdict.sentence and "t over data-set means" in verdict.sentence


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_equivalence_is_stated_with_the_interval_that_lies_within_the_margin(alpha):
    spread = np.array(WIDE) - np.mean(WIDE)
    error = 0.008 / stats.t.isf(0.9 * alpha, 7)
    differences = 0.012 + spread / spread.std(ddof=1) * error * math.sqrt(8)
    verdict = decide(table_of(differences), contrast(margin=0.02), alpha=alpha)
    assert verdict.outcome == "equivalent" and verdict.interval.level == 0.95
    assert (verdict.interval.high > 0.02) == (alpha == 0.05), "the interval of 95 % may reach beyond the margin"
    expected = tost(differences, 0.02, alpha=alpha).interval
    found = verdict.equivalence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.high < 0.02 and (found.level, found.over, found.n) == (1 - 2 * alpha, "data sets", 8)
    said = f"+{verdict.estimate:.4f} [{found.low:+.4f}, {found.high:+.4f}] ({100 - 200 * alpha:g} % interval, t over "
    assert said in verdict.sentence


def test_sentences_carry_their_uncertainty(tmp_path):
    verdicts = decide_all(
        family_table(), manifest_of([contrast(name=v, against=v) for v in "bcd"]), write_ledger(tmp_path), rng=rng()
    )
    assert verdicts[0].sentence == (
        "b is better than a in macro-F1 on data sets like these: +0.0475 [+0.0350, +0.0600] (95 % interval, median "
        "of pairwise averages of data-set means; 8 data sets, 2 seeds, 800 test images); signed-rank test over "
        "data-set means (exact, zeros by Pratt): p = 0.008 (0.023 after Holm over 3); equivalence within ±0.02: "
        "p = 1.000 (1.000 after Holm over 3); mixed model of all cells: +0.0481 [−0.0180, +0.1142] (95 % over data "
        "sets). b takes 1.50 × the MACs. "
        "Without per-image predictions: d0, d1, d2, d3, d4, d5 and 2 more."
    )
    assert verdicts[1].sentence.startswith(
        "c and a are equivalent in macro-F1 on data sets like these, within the margin"
    )
    assert verdicts[2].sentence.startswith(
        "Whether d or a is better in macro-F1 on data sets like these remains open: "
    )
    assert verdicts[0].line == (
        "b: superior; macro-F1 +0.048 [+0.035, +0.060] over data sets (median of pairwise averages), p = 0.008 (0.023 "
        "after Holm over 3), 8 data sets, 2 seeds, 800 test images, 1.50 × the MACs"
    )
    small = decide(table_of(np.array(ABOVE) / 10), contrast())
    assert "(a difference shows, and is too small to count)" in small.sentence
    for verdict in (*verdicts, small):
        assert "\n" not in verdict.sentence and "nan" not in verdict.sentence.lower() and ".." not in verdict.sentence
