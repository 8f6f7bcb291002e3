"""Scores of maps, curves and features against values known by hand; the file of explanations, its table and figures."""

import json
import math

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from analysis.explanations.__main__ import main
from analysis.explanations.features import knn_accuracy, separation, silhouette, tsne
from analysis.explanations.pointing import (
    PLACES,
    area_under,
    context,
    energy,
    extent,
    faithfulness,
    localise,
    mean_interval,
    places,
    pointing,
    spread,
)
from analysis.explanations.stored import find_explanations, load_explanations
from analysis.explanations.table import describe, score_table


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def one_hot(rows, columns, *positions):
    maps = np.zeros((len(positions), rows, columns))
    for index, (row, column) in enumerate(positions):
        maps[index, row, column] = 1.0
    return maps


def block(height, width, rows, columns):
    mask = np.zeros((1, height, width), dtype=bool)
    mask[0, rows, columns] = True
    return mask


def test_a_map_is_spread_where_its_cells_lie():
    """A grid of 2 × 3 cells of 4 pixels over 8 × 11: the last column of cells ends beyond the image."""
    maps = np.arange(6.0).reshape(1, 2, 3)
    pixels = spread(maps, 4, (8, 11))
    assert pixels.shape == (1, 8, 11)
    # Between the centres of two cells the step is a quarter of their difference; outside it is level.
    np.testing.assert_allclose(pixels[0, 0, :8], [0, 0, 0.125, 0.375, 0.625, 0.875, 1.125, 1.375])
    np.testing.assert_allclose(pixels[0, :, 0], [0, 0, 0.375, 1.125, 1.875, 2.625, 3, 3])
    # Where the grid ends before the image, it stays level too.
    np.testing.assert_allclose(spread(maps, 4, (9, 20))[0, 8, 12:], 5.0)
    np.testing.assert_allclose(spread(np.full((1, 2, 3), 0.3), 4, (7, 13)), 0.3)


def test_every_cell_weighs_the_same_when_it_is_spread():
    for position in ((0, 0), (1, 2), (2, 4)):
        assert spread(one_hot(3, 5, position), 4, (12, 20)).sum() == pytest.approx(16)


def test_the_pointing_game_points_with_the_middle_of_the_largest_cell():
    maps = one_hot(3, 5, (1, 3))
    # The middle of that cell of 4 pixels are rows 5 and 6, columns 13 and 14.
    assert pointing(maps, 4, block(12, 20, slice(5, 7), slice(13, 15))) == 1
    assert pointing(maps, 4, block(12, 20, slice(6, 7), slice(14, 15))) == 0.25
    assert pointing(maps, 4, block(12, 20, slice(4, 8), slice(12, 13))) == 0
    odd = one_hot(4, 6, (2, 1))
    assert pointing(odd, 3, block(12, 18, slice(7, 8), slice(4, 5))) == 1
    # Padded: a middle beyond the image is read at its edge.
    assert pointing(one_hot(3, 2, (2, 1)), 8, block(18, 12, slice(17, 18), slice(11, 12))) == 1


def test_cells_that_share_the_maximum_share_the_point():
    maps = one_hot(3, 5, (0, 0)) + one_hot(3, 5, (2, 4))
    assert pointing(maps, 2, block(6, 10, slice(0, 2), slice(0, 2))) == 0.5
    assert pointing(np.zeros((1, 3, 5)), 2, block(6, 10, slice(0, 2), slice(0, 4))) == pytest.approx(2 / 15)


def test_energy_is_the_share_of_the_map_on_the_lesion():
    maps = np.zeros((1, 3, 5))
    maps[0, 0, 0], maps[0, 2, 4] = 3.0, 1.0
    assert energy(maps, 1, block(3, 5, slice(0, 1), slice(0, 1))) == 0.75
    assert energy(np.zeros((1, 3, 5)), 1, block(3, 5, slice(0, 1), slice(0, 3))) == pytest.approx(0.2)


def test_random_maps_score_what_chance_does(rng):
    masks = rng.random((400, 12, 20)) < 0.3
    by_name = {score.measure: score for score in localise(rng.random((400, 3, 5)), 4, masks, rng=rng)}
    for score in by_name.values():
        controls = {control.name: control for control in score.controls}
        assert list(controls) == ["chance", "noise", "other image"]
        assert controls["chance"].value == pytest.approx(0.3, abs=0.01)
        for control in controls.values():
            assert control.value == pytest.approx(0.3, abs=0.03)
            assert 0 in control.interval
        assert score.interval.over == "test images"
        assert score.value in score.interval


def test_maps_of_the_lesion_beat_every_control_and_maps_of_the_usual_place_do_not(rng):
    rows, columns = rng.integers(0, 3, 80), rng.integers(1, 4, 80)
    maps = one_hot(3, 5, *zip(rows, columns)) + 0.1
    masks = spread(one_hot(3, 5, *zip(rows, columns)), 4, (12, 20)) > 0.7
    untrained = rng.random(maps.shape)
    for score in localise(maps, 4, masks, rng=rng, untrained=untrained):
        assert [control.name for control in score.controls] == ["chance", "noise", "other image", "untrained"]
        assert all(control.interval.low > 0 for control in score.controls)
        assert score.controls[0].gain == pytest.approx(score.value - score.controls[0].value)
    assert localise(maps, 4, masks, rng=rng)[0].value == 1
    # Lesions lie in the middle columns; a map that always marks those beats chance, and not the maps of other images.
    prior = np.broadcast_to(np.array([0, 1, 1, 1, 0.0]), maps.shape) + rng.random(maps.shape) * 1e-3
    (_, score) = localise(prior, 4, masks, rng=rng)
    controls = {control.name: control for control in score.controls}
    assert controls["chance"].interval.low > 0
    assert abs(controls["other image"].gain) < 1e-3


def test_the_control_of_other_images_is_their_mean():
    maps = one_hot(1, 3, (0, 0), (0, 1), (0, 1))
    masks = np.concatenate([block(1, 3, 0, [0]), block(1, 3, 0, [1]), block(1, 3, 0, [0, 1])])
    (score, _) = localise(maps, 1, masks, rng=np.random.default_rng(0))
    other = next(control for control in score.controls if control.name == "other image")
    # Lesion 0: maps 1 and 2 miss. Lesion 1: map 2 hits, map 0 misses. Lesion 2: both hit.
    assert other.value == pytest.approx((0 + 0.5 + 1) / 3)
    assert score.value == 1


def test_empty_maps_are_counted(rng):
    maps = np.zeros((4, 3, 5))
    maps[0] = 1
    scores = localise(maps, 2, np.ones((4, 6, 10), dtype=bool), rng=rng)
    assert [score.n_empty for score in scores] == [3, 3]


def test_what_cannot_be_localised_is_one_line(rng):
    with pytest.raises(ValueError, match="at least two, one a mask, got 1 maps and 1 masks"):
        localise(np.ones((1, 3, 5)), 2, np.ones((1, 6, 10)), rng=rng)
    with pytest.raises(ValueError, match="must mark a lesion each, got 1 empty"):
        localise(np.ones((2, 3, 5)), 2, np.stack([np.ones((6, 10)), np.zeros((6, 10))]), rng=rng)


def test_the_area_under_a_curve():
    fractions = np.array([0, 0.5, 1])
    np.testing.assert_allclose(area_under(fractions, np.array([[1, 0, 0], [1, 1, 1.0]])), [0.25, 1])
    for wrong in ([0, 0.5], [0.1, 1], [0, 0.6, 0.5, 1], [1.0]):
        with pytest.raises(ValueError, match="fractions must"):
            area_under(np.array(wrong), np.ones((1, len(wrong))))


def test_a_map_is_credited_for_early_falls_and_early_rises(rng):
    fractions = np.linspace(0, 1, 5)
    early, late = np.array([[1, 0, 0, 0, 0.0]] * 6), np.array([[1, 1, 1, 1, 0.0]] * 6)
    score = faithfulness(fractions, {"map": early, "random": late}, "deletion", rng=rng)
    assert score.value == 0.125
    assert score.controls[0].gain == pytest.approx(0.75)
    score = faithfulness(fractions, {"map": early, "random": late}, "insertion", rng=rng)
    assert score.controls[0].gain == pytest.approx(-0.75)
    with pytest.raises(ValueError, match="deletion or insertion"):
        faithfulness(fractions, {"map": early}, "occlusion", rng=rng)


def test_the_interval_of_a_mean_covers_it_and_follows_groups(rng):
    inside = 0
    for _ in range(200):
        inside += 0.0 in mean_interval(rng.normal(size=40), None, rng, draws=400)
    assert 0.88 <= inside / 200 <= 0.99
    # Ten equal images of one patient say no more than one.
    values, groups = np.repeat(rng.normal(size=20), 10), np.repeat(np.arange(20), 10)
    alone, grouped = mean_interval(values, None, rng), mean_interval(values, groups, rng)
    assert (grouped.over, grouped.n) == ("groups of test images", 20)
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)
    assert not mean_interval(np.ones(3), np.zeros(3), rng).is_defined


def test_a_mean_of_few_images_has_an_interval_that_holds_it_or_none(rng):
    # Plain percentiles of six hold it 84 % of the time.
    inside = np.mean([0.0 in mean_interval(rng.normal(size=6), None, rng, draws=1000) for _ in range(1000)])
    assert 0.9 <= inside <= 0.98
    values = rng.random(5)
    assert [mean_interval(values[:n], None, rng).is_defined for n in (2, 3, 4, 5)] == [False, False, False, True]


def test_the_global_seed_has_no_effect(rng):
    maps, masks = rng.random((6, 3, 5)), rng.random((6, 6, 10)) < 0.4
    found = []
    for seed in (1, 2):
        np.random.seed(seed)
        found.append(localise(maps, 2, masks, rng=np.random.default_rng(0)))
        np.random.seed(seed)
        found.append(tsne(maps.reshape(6, -1), rng=np.random.default_rng(0)).tolist())
    assert found[0] == found[2]
    assert found[1] == found[3]


def test_the_extent_of_a_field():
    field = np.zeros((4, 5))
    field[1, 2], field[0, 0] = 0.9, 0.1
    assert extent(field, 0.5) == 1 / 20
    assert extent(field, 0.95) == 2 / 20
    assert extent(np.ones((4, 5)), 0.5) == 0.5
    assert extent(np.zeros((4, 5))) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        extent(field, 1.0)


def test_the_context_of_an_output():
    field = np.zeros((12, 20))
    field[5, 9], field[0, 19] = 3.0, 1.0
    assert context(field, (1, 2), 4) == 0.25
    assert context(field, (0, 4), 4) == 0.75
    assert math.isnan(context(np.zeros((12, 20)), (0, 0), 4))
    assert places(3, 5) == [(1, 2), (0, 0), (0, 4), (2, 0), (2, 4)]


def test_silhouette_and_neighbours_agree_with_their_definitions(rng):
    labels = rng.integers(0, 3, 60)
    features = rng.normal(size=(60, 4)) + labels[:, None] * 0.8
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    means = np.stack([distances[:, labels == name].sum(1) for name in range(3)], 1)
    sizes = np.bincount(labels)
    inside = means[np.arange(60), labels] / (sizes[labels] - 1)
    outside = np.where(np.arange(3) == labels[:, None], np.inf, means / sizes).min(1)
    expected = np.mean((outside - inside) / np.maximum(inside, outside))
    assert silhouette(features, labels) == pytest.approx(expected, abs=1e-12)
    # Far from the origin the distances stay what they are.
    assert silhouette(features + 1e6, labels) == pytest.approx(expected, abs=1e-6)
    found = [
        KNeighborsClassifier(1).fit(np.delete(features, i, 0), np.delete(labels, i)).predict(features[i : i + 1])[0]
        for i in range(60)
    ]
    assert knn_accuracy(features, labels, neighbours=1) == pytest.approx(np.mean(found == labels))


def test_neighbours_vote_and_the_nearest_breaks_ties():
    features = np.array([[0.0], [1.0], [2.1], [10.0], [11.0], [12.5]])
    labels = np.array([0, 0, 1, 1, 1, 1])
    # The third image's neighbours are both of class 0; all others have the nearest of their own class.
    assert knn_accuracy(features, labels, neighbours=2) == pytest.approx(5 / 6)
    assert knn_accuracy(features, labels, neighbours=5) == pytest.approx(4 / 6)


def test_images_of_one_patient_do_not_vouch_for_each_other(rng):
    features = np.repeat(rng.normal(size=(30, 3)), 2, axis=0)
    labels, groups = np.repeat(rng.integers(0, 2, 30), 2), np.repeat(np.arange(30), 2)
    assert knn_accuracy(features, labels, neighbours=1) == 1
    assert knn_accuracy(features, labels, groups=groups, neighbours=1) < 0.8
    with pytest.raises(ValueError, match="between 1 and 58, the images of other groups, got 59"):
        knn_accuracy(features, labels, groups=groups, neighbours=59)


def test_degenerate_features_have_defined_answers():
    assert math.isnan(silhouette(np.ones((4, 2)), np.zeros(4, dtype=int)))
    assert silhouette(np.ones((4, 2)), np.array([0, 0, 1, 1])) == 0
    assert silhouette(np.array([[0.0], [1.0], [5.0]]), np.array([0, 1, 2])) == 0
    assert silhouette(np.array([[0.0], [1.0], [5.0]]), np.array([0, 0, 1])) == pytest.approx((4 / 5 + 3 / 4) / 3)
    found = separation(np.ones((7, 2)), np.array([0, 0, 0, 0, 1, 1, 1]))
    assert found.majority == pytest.approx(4 / 7)
    # Few images have few neighbours; those of a single patient have none.
    few, labels = np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 1])
    assert (separation(few, labels).neighbours, separation(few, labels, groups=[1, 1, 1, 2]).neighbours) == (3, 1)
    alone = separation(few, labels, groups=np.zeros(4))
    assert alone.neighbours == 0 and math.isnan(alone.knn_accuracy) and alone.silhouette > 0.9
    with pytest.raises(ValueError, match="finite"):
        silhouette(np.array([[np.nan], [1.0]]), np.array([0, 1]))
    with pytest.raises(ValueError, match="one row a label"):
        silhouette(np.ones((3, 2)), np.zeros(4))


def test_tsne_keeps_far_clusters_apart(rng):
    labels = np.repeat([0, 1], 15)
    features = rng.normal(size=(30, 6)) + 40 * labels[:, None]
    picture = tsne(features, rng=rng)
    assert picture.shape == (30, 2)
    assert knn_accuracy(picture, labels, neighbours=3) == 1
    with pytest.raises(ValueError, match="at least 5 images, got 4"):
        tsne(features[:4], rng=rng)


def write_explanations(path, rng, *, n=12, masks=True, groups=False, label="baseline", seed=0, study="small"):
    """A file as study.explain writes it, of a network that sees the lesion: 12 × 20 pixels, stages of 2 and 4."""
    labels = np.arange(n) % 2
    rows, columns = rng.integers(0, 3, n), rng.integers(0, 5, n)
    arrays = {
        "ids": np.array([f"test/{i}" for i in range(n)]),
        "labels": labels,
        "predicted": labels,
        "targets": labels,
        "probabilities": np.eye(2)[labels] * 0.6 + 0.2,
        "features": rng.normal(size=(n, 3)) + 3 * labels[:, None],
        "images": rng.integers(0, 255, (n, 12, 20, 1)).astype(np.uint8),
        "fractions": np.linspace(0, 1, 5),
        "maps_0": np.kron(one_hot(3, 5, *zip(rows, columns)), np.ones((1, 2, 2))) + 0.01,
        "maps_1": one_hot(3, 5, *zip(rows, columns)),
        "untrained_maps_0": rng.random((n, 6, 10)),
        "untrained_maps_1": rng.random((n, 3, 5)),
        "receptive_fields": rng.random((2, len(PLACES), 12, 20)),
        "untrained_receptive_fields": np.zeros((2, len(PLACES), 12, 20)),
    }
    for kind, end in (("deletion", 0.1), ("insertion", 0.9)):
        for order, power in (("map", 0.2), ("random", 1.0), ("untrained", 1.2)):
            arrays[f"{kind}_{order}"] = 0.5 + (end - 0.5) * arrays["fractions"] ** power + 0.01 * rng.random((n, 5))
    if masks:
        arrays["masks"] = (spread(arrays["maps_1"], 4, (12, 20)) > 0.7) & (labels > 0)[:, None, None]
    if groups:
        arrays["groups"] = np.arange(n) // 2
    about = {
        "study": study,
        "variant_label": label,
        "variant_id": "0" * 12,
        "cell_id": "c" * 16,
        "dataset": "phantom_position",
        "seed": seed,
        "split": "test",
        "classes": ["absent", "present with a long name"],
        "cells": [2, 4],
        "maps_for": "labelled",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, about=np.array(json.dumps(about)), **arrays)
    return path


def test_a_file_is_scored_and_told(tmp_path, rng):
    one = load_explanations(write_explanations(tmp_path / "a.npz", rng))
    scores = one.localisation(rng)
    assert list(scores) == [0, 1]
    assert scores[1][0].n_images == 6
    assert scores[1][0].value == 1
    text = "\n".join(describe(one))
    assert "baseline on phantom_position, seed 0: 12 images of test" in text
    assert "pointing game, stage 1: 1.000" in text and "network and seed are held fixed" in text
    assert "(95 % over test images, n = 6)" in text
    assert "deletion area" in text and "5-NN accuracy" in text
    fields = {(field.stage, field.place): field for field in one.fields()}
    assert len(fields) == 10
    assert 0.8 < fields[0, "centre"].most < 1
    assert fields[0, "centre"].half < fields[0, "centre"].most
    assert all(field.most == 0 for field in one.fields("untrained_"))


def test_without_lesions_and_with_groups(tmp_path, rng):
    one = load_explanations(write_explanations(tmp_path / "a.npz", rng, masks=False, groups=True))
    assert one.localisation(rng) == {}
    text = "\n".join(describe(one))
    assert "no known lesions" in text
    assert "95 % over groups of test images, n = 6" in text


def test_the_table_has_a_row_a_measure_and_stage(tmp_path, rng):
    for index, (label, seed) in enumerate((("b", 0), ("a", 1), ("a", 0))):
        write_explanations(tmp_path / "explanations" / f"{index}.npz", rng, label=label, seed=seed)
    found = find_explanations(tmp_path, "small")
    assert [(one.about["variant_label"], one.about["seed"]) for one in found] == [("a", 0), ("a", 1), ("b", 0)]
    assert find_explanations(tmp_path, "other") == []
    table = score_table(found, rng=rng)
    assert len(table) == 3 * (2 * 2 + 2 + 2)
    row = table[(table["measure"] == "pointing game") & (table["stage"] == 1)].iloc[0]
    assert row["value"] == 1
    assert row["gain over untrained"] == pytest.approx(1 - row["untrained"])
    assert row["low"] <= row["value"] <= row["high"]


def test_the_command_writes_a_table_and_figures(tmp_path, rng, capsys):
    path = write_explanations(tmp_path / "in" / "cell.npz", rng)
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    assert "pointing game" in capsys.readouterr().out
    assert (tmp_path / "out" / "explanations.csv").read_text().count("\n") == 9
    names = ["curves", "features", "localisation", "maps_stage_0", "maps_stage_1", "receptive_fields"]
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        files = sorted((tmp_path / "out" / "cell").glob(f"*.{ending}"))
        assert [file.stem for file in files] == names
        assert all(file.read_bytes().startswith(start) for file in files)


def test_a_broken_file_is_one_line(tmp_path, rng, capsys):
    whole = write_explanations(tmp_path / "a.npz", rng)
    torn = tmp_path / "torn.npz"
    torn.write_bytes(whole.read_bytes()[:2000])
    bare = tmp_path / "bare.npz"
    np.savez(bare, about=np.array(json.dumps({"cells": [2]})), ids=np.arange(2))
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, about=np.array([{}], dtype=object))
    cases = ((tmp_path / "none.npz", "no such file"), (torn, "whole file"), (bare, "got no labels"), (pickled, "whole"))
    for path, message in cases:
        assert main([str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}: must") and message in error and error.count("\n") == 1
