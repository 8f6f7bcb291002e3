"""Files of one source: averaged wherever data sets are counted, and told."""

import numpy as np
import pandas as pd
import pytest

from analysis.across import critical_difference, dataset_slope, friedman, mixed_model, signed_rank, summary
from analysis.across.effects import seed_values
from analysis.across.pareto import Cells
from analysis.across.standings import mean_costs, standings
from analysis.power import pilot_spread
from analysis.records.sources import averaged, counted_units, files_by_source, manifest_sources, told, unit_noun
from analysis.records.table import as_matrix, sources_of

# Four data sets of three sources: b and d are one.
SOURCES = {"a": "a", "b": "s", "c": "c", "d": "s"}


def made(n_variants=3, seeds=2, rng=0):
    """A table of cells on four files, and the same with the files of source s replaced by one, their average."""
    draws = np.random.default_rng(rng).normal(0.8, 0.03, (n_variants, 4, seeds))
    rows = [
        {"variant_id": f"v{v}", "variant_label": f"v{v}", "dataset": name, "source_key": SOURCES[name], "seed": s}
        | {"status": "done", "recipe_id": "r", "test.macro_f1": draws[v, d, s], "test.macro_auc_ovr": draws[v, d, s]}
        | {"cost.macs": 1e6 * (v + 1) * (d + 1), "cost.params": 10.0 * (v + 1)}
        for v in range(n_variants)
        for d, name in enumerate("abcd")
        for s in range(seeds)
    ]
    files = pd.DataFrame(rows)
    merged = files.assign(dataset=files["dataset"].map({"a": "a", "b": "b + d", "c": "c", "d": "b + d"}))
    numbers = ["test.macro_f1", "test.macro_auc_ovr", "cost.macs", "cost.params"]
    keys = ["variant_id", "variant_label", "dataset", "seed", "status", "recipe_id"]
    return files, merged.groupby(keys, sort=False)[numbers].mean().reset_index()


def test_words_and_groups():
    assert files_by_source("abcd", SOURCES) == [("a",), ("b", "d"), ("c",)]
    assert files_by_source("xy", {}) == [("x",), ("y",)]
    assert averaged({"a": 1.0, "b": 2.0, "d": 4.0}, SOURCES) == {"a": 1.0, "b + d": 3.0}
    assert unit_noun("abcd", SOURCES) == "source" and unit_noun("abc", SOURCES) == "data set"
    assert counted_units(4, 3) == "4 data sets of 3 sources" and counted_units(1, 1) == "1 data set"
    assert told("abcd", SOURCES) == "sources: b and d are one (s): averaged, they count once" and told("abc", {}) == ""
    assert sources_of(made()[0]) == SOURCES and sources_of(made()[1])["b + d"] == "b + d"
    # A record from before there were sources does not undo what others say of its data set.
    mixed = made()[0]
    mixed.loc[mixed["seed"] == 1, "source_key"] = None
    assert sources_of(mixed) == SOURCES


def test_a_manifest_says_what_a_study_named_last():
    both = {"source_keys": {"a": "x", "b": "y"}, "sources": {"b": "z"}}
    assert manifest_sources(both) == {"a": "x", "b": "z"} and manifest_sources({}) == {}
    with pytest.raises(ValueError, match=r"manifest.sources must name a source by data set, got 3"):
        manifest_sources({"sources": 3})


def same(a, b):
    return a == pytest.approx(b, rel=1e-9)


def test_every_count_of_data_sets_counts_sources():
    """What comes of four files of three sources is what comes of three data sets, one of them their average."""
    files, units = made()
    a, b = as_matrix(files, "macro_f1"), as_matrix(units, "macro_f1")
    assert a[1] == b[1] == 0 and list(a[0].index) == ["a", "b + d", "c"]
    assert same(a[0].to_numpy(), b[0].to_numpy())
    assert same(friedman(files, metric="macro_f1").chi2, friedman(units, metric="macro_f1").chi2)
    ranks = critical_difference(files, metric="macro_f1")
    assert ranks.n == 3 and ranks.over == "source" and critical_difference(units, metric="macro_f1").over == "data set"
    one, two = mixed_model(files, "macro_f1", macs=False), mixed_model(units, "macro_f1", macs=False)
    assert (one.n_datasets, one.over, two.over) == (3, "sources", "data sets")
    assert same(one.effects[0].estimate, two.effects[0].estimate)
    assert same(one.effects[1].interval.low, two.effects[1].interval.low)
    assert one.difference("v0", "v1").interval.over == "sources" and one.difference("v0", "v1").df == 2
    for column in ("macro_f1", "macro_f1_low", "macro_auc_ovr_high"):
        assert same(summary(files)[column].to_numpy(), summary(units)[column].to_numpy())
    row = summary(files).iloc[0]
    assert (row["n_datasets"], row["n_sources"], row["interval_over"]) == (4, 3, "sources")
    one, two = (standings(table, "macro_f1", ["v0", "v1", "v2"]) for table in (files, units))
    assert one.over == "sources, their common difficulty removed" and one.datasets == ("a", "b", "c", "d")
    for variant in one.means:
        assert same(one.means[variant], two.means[variant])
        assert same(one.intervals[variant].high, two.intervals[variant].high) and one.intervals[variant].n == 3
    assert same(mean_costs(files, ["cost.macs"], ()).to_numpy(), mean_costs(units, ["cost.macs"], ()).to_numpy())
    one, two = (Cells(table, "macro_f1", "macs") for table in (files, units))
    assert same(one.means, two.means) and same(one.costs, two.costs) and one.n_seeds == [2, 2, 2]
    assert one.value(0, 0.95)[1].over == "sources" and one.left_out == ()
    runs = seed_values(files, "macro_f1", "v1")
    assert list(runs) == ["a", "b + d", "c"] and same(runs["b + d"], seed_values(units, "macro_f1", "v1")["b + d"])


def test_a_pilot_of_files_has_the_spread_of_its_sources():
    rng = np.random.default_rng(1)
    rows = []
    for study in range(400):
        interaction = rng.normal(0, 0.02, (2, 3))
        for v in range(2):
            for name in "abcd":
                unit = sorted(set(SOURCES.values())).index(SOURCES[name])
                for seed in range(3):
                    value = 0.8 + interaction[v, unit] + rng.normal(0, 0.01)
                    rows.append((f"v{v}-{study}", f"{name}", f"{SOURCES[name]}", seed, value))
    table = pd.DataFrame(rows, columns=["variant_id", "dataset", "source_key", "seed", "test.macro_f1"])
    spreads = [
        pilot_spread(table[table["variant_id"].isin([f"v0-{s}", f"v1-{s}"])], "macro_f1") for s in range(0, 400, 4)
    ]
    assert np.mean([s.residual**2 for s in spreads]) == pytest.approx(0.01**2, rel=0.1)
    assert np.mean([s.dataset_variant**2 for s in spreads]) == pytest.approx(0.02**2, rel=0.3)
    assert spreads[0].n_datasets == 3


def test_a_source_without_a_whole_seed_is_left_out_of_cells_and_kept_in_means():
    files, _ = made()
    files.loc[(files["dataset"] == "d") & (files["variant_id"] == "v1"), "status"] = "failed"
    values, left_out = as_matrix(files, "macro_f1")
    # On d not every variant has finished, so b stands for the source alone.
    assert list(values.index) == ["a", "b", "c"] and left_out == 0
    model = mixed_model(files, "macro_f1", macs=False)
    assert model.datasets_of == {"v0": 3, "v1": 2, "v2": 3}


def test_a_slope_has_a_point_for_each_source():
    files, _ = made()
    along = {"a": 1.0, "b": 2.0, "c": 5.0, "d": 4.0}
    slope = dataset_slope(files, "macro_f1", "v0", "v1", along, rng=np.random.default_rng(0))
    assert list(slope.points) == ["a", "b + d", "c"] and slope.points["b + d"][0] == 3.0
    assert slope.interval.over == "sources" and slope.interval.n == 3


def test_one_source_of_several_files_has_an_interval_over_seeds():
    files, _ = made()
    here = files[files["dataset"].isin(["b", "d"])]
    row = summary(here).iloc[0]
    assert (row["n_datasets"], row["n_sources"], row["interval_over"]) == (2, 1, "seeds")
    place = standings(here, "macro_f1", ["v0", "v1", "v2"])
    assert place.over == "seeds" and place.intervals["v0"].n == 2


def test_dependent_files_are_no_more_evidence_than_their_source():
    """Five files of one collection that agree: a signed-rank test over files would have p = .0625, here it has 1."""
    assert signed_rank(list(averaged(dict.fromkeys("vwxyz", 0.1), dict.fromkeys("vwxyz", "s")).values())).p_value == 1
