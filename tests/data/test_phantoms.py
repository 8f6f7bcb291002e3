"""Phantoms: the same images everywhere and for ever, dials that do what they say, and no answer for a linear probe."""

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from effort import calls_of
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from analysis.tasks import supports
from study.data import Dataset, load_dataset, open_source
from study.data.phantoms.controlled import PLACES
from study.data.phantoms.sets import PHANTOMS, dials_of, parse_name

PHANTOM = {"kind": "phantom"}
SMALL = "n_train=24&n_val=6&n_test=9"
# What the images were when the studies in README ran. A change here makes every finished phantom cell another cell.
FINGERPRINTS: dict[str, str] = {
    "phantom_ct": "dc5716c905ae33a7",
    "phantom_dermatoscopy": "3b2490bcc5c63e7d",
    "phantom_findings": "e760c995d8675f8a",
    "phantom_fundus": "20908865cda7d18f",
    "phantom_grades": "1fe7a7fb498abcdf",
    "phantom_histology": "e534b5b9d49f28ee",
    "phantom_mri": "d59d78881677cc84",
    "phantom_position": "ff943ed2666a0f0d",
    "phantom_relation": "30a4e4526a5f5f6d",
    "phantom_sparse": "862ae9d041cea0a9",
    "phantom_texture": "e8294b70e825d4b7",
    "phantom_ultrasound": "7e5ad29d781f5ec3",
    "phantom_xray": "557596a34a76ad1e",
}


def phantom(name: str) -> Dataset:
    return load_dataset(PHANTOM, name)


def test_all_are_registered_and_pinned():
    assert open_source(PHANTOM).names() == sorted(PHANTOMS)
    assert set(FINGERPRINTS) == set(PHANTOMS)


@pytest.mark.parametrize("name", sorted(PHANTOMS))
def test_the_images_never_change(name):
    assert phantom(name).info.fingerprint == FINGERPRINTS[name], "the images of a phantom must never change silently"


@pytest.mark.parametrize("name", sorted(PHANTOMS))
def test_a_set_is_complete_and_balanced(name):
    data = phantom(f"{name}?size=20x28&{SMALL}")
    info = data.info
    assert info.image_size == (20, 28)
    assert (info.n_train, info.n_val, info.n_test) == (24, 6, 9)
    assert info.modality == PHANTOMS[name].modality
    for split in data.splits.values():
        assert split.images.shape[1:] == (20, 28, info.channels) and split.images.dtype == np.uint8
        counts = supports(split.labels, len(info.classes))
        assert counts.max() - counts.min() <= 1
        assert len(np.unique(split.images.reshape(len(split), -1), axis=0)) == len(split)
        # An image that fills only a corner of the grey levels, or is clipped to black or white, is badly exposed.
        assert split.images.std() > 8
        assert ((split.images == 0) | (split.images == 255)).mean() < 0.45
    groups = np.concatenate([split.groups for split in data.splits.values() if split.groups is not None])
    assert len(np.unique(groups)) == 39


@pytest.mark.parametrize("name", sorted(PHANTOMS))
def test_many_images_are_drawn_at_once(name):
    def load(counts: str) -> None:
        load_dataset(PHANTOM, f"{name}?{counts}")

    # What is made once is made; another seed, for a set already drawn would be remembered.
    load("n_train=9&n_val=4&n_test=6&seed=70")
    # Pixels on their own would take hundreds of calls an image.
    assert 100 < calls_of(lambda: load("n_train=40&n_val=8&n_test=12&seed=71")) < 60 * 60


def probe(data: Dataset) -> float:
    """Test balanced accuracy of a logistic regression on 16 by 16 pixels; of several labels an image, its mean."""
    pixels = {}
    for name in ("train", "test"):
        images = data.splits[name].images
        pixels[name] = np.stack(
            [
                np.asarray(Image.fromarray(i.squeeze()).resize((16, 16), Image.Resampling.BILINEAR)).ravel()
                for i in images
            ]
        )
    found = []
    several = data.splits["train"].labels.ndim == 2
    for label in range(len(data.info.classes)) if several else [...]:
        own = {name: data.splits[name].labels[(slice(None), label) if several else label] for name in pixels}
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=60))
        # One thread: on a busy machine waiting threads cost more than they compute.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(pixels["train"], own["train"])
        found.append(balanced_accuracy_score(own["test"], model.predict(pixels["test"])))
    return float(np.mean(found))


@pytest.mark.parametrize("name", sorted(PHANTOMS))
def test_a_linear_probe_does_not_solve_it(name):
    # Twice the images a study trains on: a probe may not win by data either.
    assert probe(phantom(f"{name}?n_train=400&n_test=240")) < 0.8


@pytest.mark.parametrize(
    "query", [*(f"position?where={place}" for place in PLACES), "relation?distance=0.8", "texture?classes=4"]
)
def test_controlled_tasks_say_nothing_to_a_linear_probe(query):
    data = phantom(f"phantom_{query}&n_train=400&n_test=400")
    assert probe(data) < 1 / len(data.info.classes) + 0.12


def test_the_probe_can_win():
    data = phantom(f"phantom_sparse?{SMALL}")
    lit = {
        name: replace(split, images=split.images // 2 + (100 * split.labels).astype(np.uint8).reshape(-1, 1, 1, 1))
        for name, split in data.splits.items()
    }
    assert probe(replace(data, splits=lit)) == 1.0


def test_another_process_and_another_hash_seed_draw_the_same():
    name = f"phantom_histology?{SMALL}"
    code = f"from study.data import load_dataset as d; print(d({{'kind': 'phantom'}}, {name!r}).info.fingerprint)"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        for seed in ("1", "2")
    ]
    assert [run.stdout.strip() for run in runs] == [phantom(name).info.fingerprint] * 2


def test_the_global_seed_has_no_effect():
    prints = set()
    for seed in (0, 1):
        np.random.seed(seed)
        # The spelling differs, so that the set is drawn and not remembered.
        prints.add(phantom(f"phantom_mri?noise=1.{seed * '0'}0&{SMALL}").info.fingerprint)
    assert len(prints) == 1


def test_more_images_leave_the_first_ones_as_they_are():
    few, many = phantom("phantom_fundus?n_test=50"), phantom("phantom_fundus?n_test=50&n_train=240")
    assert np.array_equal(few.splits["test"].images, many.splits["test"].images)
    assert not np.array_equal(few.splits["test"].images[:40], few.splits["val"].images[:40])


@pytest.mark.parametrize(
    "turn",
    ["size=32", "noise=0.5", "seed=3", "imbalance=4", "n_train=30", "where=edge"],
    ids=lambda turn: turn.split("=")[0],
)
def test_every_dial_changes_the_images(turn):
    base = f"phantom_position?{SMALL}"
    changed = phantom(f"{base}&{turn}" if "n_train" not in turn else "phantom_position?n_train=30&n_val=6&n_test=9")
    assert changed.info.fingerprint != phantom(base).info.fingerprint


def test_a_dial_at_its_default_changes_nothing():
    assert (
        phantom("phantom_ct?size=28&noise=1&seed=0&classes=3").info.fingerprint
        == phantom("phantom_ct").info.fingerprint
    )


def test_dials_of_the_source_hold_for_names_that_do_not_turn_them():
    spec = {"kind": "phantom", "size": 32, "n_train": 12, "n_val": 4, "n_test": 4}
    assert load_dataset(spec, "phantom_ct").info.image_size == 32
    assert load_dataset(spec, "phantom_ct?size=24").info.image_size == 24
    assert load_dataset(spec, "phantom_ct?size=24").info.n_train == 12


def test_noise_is_only_noise():
    calm, loud = (
        phantom(f"phantom_sparse?{SMALL}&noise={level}").splits["train"].images.astype(float) for level in (0, 2)
    )
    difference = loud - calm
    assert 15 < difference.std() < 35
    assert abs(difference.mean()) < 2


@pytest.mark.parametrize(
    ("imbalance", "expected"), [(1, [40, 40, 40]), (10, [84, 27, 9]), (100, [109, 11, 1]), (10**4, [118, 1, 1])]
)
def test_imbalance_is_the_ratio_of_first_to_last(imbalance, expected):
    labels = (
        phantom(f"phantom_ct?n_train=60&n_val=20&n_test={sum(expected)}&imbalance={imbalance}").splits["test"].labels
    )
    assert np.abs(np.bincount(labels) - expected).max() <= 1
    assert np.bincount(labels).min() >= 1 and len(labels) == sum(expected)


def test_fewer_classes_are_the_first_ones():
    assert phantom(f"phantom_xray?classes=2&{SMALL}").info.classes == PHANTOMS["phantom_xray"].classes[:2]
    assert len(phantom("phantom_texture").info.classes) == 2
    assert len(phantom(f"phantom_texture?classes=4&{SMALL}").info.classes) == 4
    assert "classes" not in dials_of("phantom_sparse")


@pytest.mark.parametrize("name", sorted(PHANTOMS))
def test_masks_mark_findings_and_nothing_else(name):
    split = phantom(name).splits["train"]
    assert split.masks is not None
    assert split.masks.shape == split.images.shape[:3] and split.masks.dtype == np.uint8
    share = split.masks.mean(axis=(1, 2))
    everywhere = name in ("phantom_dermatoscopy", "phantom_texture", "phantom_relation")
    ill = split.labels.any(axis=1) if split.labels.ndim == 2 else split.labels > 0
    healthy = share[~ill]
    assert (healthy > 0).all() if everywhere else (healthy == 0).all()
    assert (share[ill] > 0).mean() > 0.97
    assert share.max() < 0.75


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("phantom_ultrasound", -1),
        ("phantom_sparse", 1),
        ("phantom_relation", 1),
        ("phantom_mri", 0),
        ("phantom_position", 0),
    ],
)
def test_the_finding_is_where_the_mask_is(name, contrast):
    # Upright and wide differ, so a transposed mask would lie elsewhere.
    split = phantom(f"{name}?size=24x36&noise=0").splits["train"]
    assert split.masks is not None
    ill = (split.masks.sum(axis=(1, 2)) > 0) & (split.labels > 0)
    images, masks = split.images[ill, ..., 0].astype(float), split.masks[ill].astype(bool)
    inside = np.array([image[mask].mean() - image[~mask].mean() for image, mask in zip(images, masks, strict=True)])
    if contrast:
        assert contrast * np.median(inside) > 10
    else:
        assert inside.std() > 10


@pytest.mark.parametrize(
    ("where", "upper", "left"), [("top_left", 1, 1), ("top_right", 1, 0), ("bottom_left", 0, 1), ("bottom_right", 0, 0)]
)
def test_the_lesion_lies_where_the_dial_says(where, upper, left):
    split = phantom(f"phantom_position?where={where}&size=20x32").splits["train"]
    assert split.masks is not None
    y, x = _middles(split.masks[split.labels == 1])
    assert ((y < 10) == bool(upper)).all() and ((x < 16) == bool(left)).all()
    assert (np.abs(y / 20 - 0.5) > 0.25).all() and (np.abs(x / 32 - 0.5) > 0.25).all()


def test_centre_edge_and_anywhere_differ():
    spread = {}
    for where in ("centre", "edge", "anywhere"):
        split = phantom(f"phantom_position?where={where}&size=20x32").splits["train"]
        assert split.masks is not None
        y, x = _middles(split.masks[split.labels == 1])
        spread[where] = np.maximum(np.abs(y / 20 - 0.5), np.abs(x / 32 - 0.5))
    assert spread["centre"].max() < 0.1
    assert spread["edge"].min() > 0.28
    assert spread["anywhere"].min() < 0.1 and spread["anywhere"].max() > 0.3


def test_the_distance_of_two_findings_is_the_dials():
    for distance in (0.3, 0.6):
        split = phantom(f"phantom_relation?distance={distance}&size=24x40&noise=0").splits["train"]
        assert split.masks is not None
        columns = split.masks.any(axis=1)
        wide = 40 - columns[:, ::-1].argmax(axis=1) - columns.argmax(axis=1)
        assert abs(np.median(wide) / 40 - distance - 0.15) < 0.05


def _middles(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean row and column of each mask, (images,) each."""
    total = masks.sum(axis=(1, 2))
    rows = (masks.sum(axis=2) * (np.arange(masks.shape[1]) + 0.5)).sum(axis=1) / total
    columns = (masks.sum(axis=1) * (np.arange(masks.shape[2]) + 0.5)).sum(axis=1) / total
    return rows, columns


WRONG = {
    "phantom_cat": "phantoms: must hold the data set 'phantom_cat', and does not; did you mean phantom_ct",
    "phantom_ct?sise=3": "phantom_ct?sise=3: must have the dial sise, and has not; did you mean size?",
    "phantom_ct?where=edge": "phantom_ct?where=edge: must have the dial where, and has not; its dials are size,",
    "phantom_ct?size=4": "phantom_ct?size=4: size must be pixels from 8 to 1024, or height x width as in 24x32",
    "phantom_ct?size=9x9x9": "phantom_ct?size=9x9x9: size must be pixels from 8 to 1024, or height x width",
    "phantom_ct?size": "phantom_ct?size: size must be pixels from 8 to 1024, or height x width as in 24x32, got ''",
    "phantom_ct?n_val=1": "phantom_ct?n_val=1: n_val must be a whole number from 2 to 1000000, got 1",
    "phantom_ct?n_val=2": "phantom_ct: n_val must be at least the number of classes, 3, got 2",
    "phantom_ct?n_val=2.5": "phantom_ct?n_val=2.5: n_val must be a whole number from 2 to 1000000, got the string "
    "'2.5'",
    "phantom_ct?classes=4": "phantom_ct?classes=4: classes must be a whole number from 2 to 3, got 4",
    "phantom_ct?noise=nan": "phantom_ct?noise=nan: noise must be a number from 0 to 20, got nan",
    "phantom_ct?imbalance=0.5": "phantom_ct?imbalance=0.5: imbalance must be a number from 1 to 10000, got 0.5",
    "phantom_ct?seed=1&seed=2": "phantom_ct?seed=1&seed=2: the dial seed must be turned once, got it twice",
    "phantom_ct?&": "phantom_ct?&: dials must be written dial=value with & between, got '&'",
    "phantom_position?where=top": "phantom_position?where=top: where must be one of anywhere, centre, edge, top_left,",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_or_dial_is_named_in_one_line(name):
    with pytest.raises(ValueError) as caught:
        phantom(name)
    assert str(caught.value).startswith(WRONG[name]) and "\n" not in str(caught.value)


def test_wrong_dials_of_a_source_are_named():
    with pytest.raises(ValueError, match=r"source: noise must be a number from 0 to 20, got the string 'loud'"):
        open_source({"kind": "phantom", "noise": "loud"})
    with pytest.raises(
        ValueError, match=r"source\.sise must be a setting of kind phantom, and is not; did you mean size"
    ):
        open_source({"kind": "phantom", "sise": 28})


def test_parse_name_gives_every_dial():
    plain, dials = parse_name("phantom_relation?distance=0.25")
    assert plain == "phantom_relation"
    assert set(dials) == set(dials_of("phantom_relation")) and dials["distance"] == 0.25
