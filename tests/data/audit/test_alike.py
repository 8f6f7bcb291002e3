"""Look-alikes: made copies are found, other pictures are not, and every figure agrees with its definition."""

import io
import math

import numpy as np
import pytest
from made_images import clean, made, pictures
from PIL import Image

from analysis.audits import limits, notices
from study.audit.alike import LIKELY, MOST_BITS, SURE, TURNS, correlations, find_pairs, hashes
from study.audit.findings import audit, short_audit
from study.audit.overlap import clusters, overlap
from study.audit.pool import pool_of, thinned


def brighter(image):
    return np.clip(0.8 * image.astype(float) + 45, 0, 255).astype(np.uint8)


def resized(image):
    height, width = image.shape
    small = Image.fromarray(image).resize((2 * width // 3, 2 * height // 3))
    return np.asarray(small.resize((width, height)))


def as_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


WAYS = {
    "equal": (lambda image: image, "as it is"),
    "brighter": (brighter, "as it is"),
    "resized": (resized, "as it is"),
    "jpeg": (as_jpeg, "as it is"),
    "mirrored": (lambda image: image[:, ::-1], "mirrored"),
    "upside down": (lambda image: image[::-1], "upside down"),
    "half a turn": (lambda image: brighter(image)[::-1, ::-1], "turned by 180°"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_in_test_of_an_image_of_train_is_found(way):
    copy, turn = WAYS[way]
    images, labels = clean()
    images["test"][5] = copy(images["train"][9])
    found = audit(made(images, labels))["alike"]
    straight = turn == "as it is"
    assert found["seen"]["test"] == {
        "of": 16, "images": int(straight), "equal": int(way == "equal"), "turned": int(not straight)
    }  # fmt: skip
    assert found["seen"]["val"]["images"] == found["seen"]["val"]["turned"] == 0
    (pair,) = found["examples"]["test" if straight else "test turned"]
    assert pair["images"] == ["test/5", "train/9"] and pair["turn"] == turn
    # Both bear label 1, so there is no conflict.
    assert found["conflicts"] == {"pairs": 0, "equal": 0, "turned": 0}
    assert found["clusters"] == {"count": 1, "images": 2, "largest": 2}


@pytest.mark.parametrize("turns", [1, 3])
def test_a_square_image_turned_by_a_quarter_is_found(turns):
    images = {"train": pictures(20, 1, 32, 32), "val": pictures(8, 2, 32, 32), "test": pictures(8, 3, 32, 32)}
    images["val"][2] = np.rot90(images["train"][3], turns)
    images["test"][1] = images["train"][4].T
    found = audit(made(images, {name: np.arange(len(part)) % 2 for name, part in images.items()}))["alike"]
    assert found["seen"]["val"]["turned"] == found["seen"]["test"]["turned"] == 1
    assert found["examples"]["val turned"][0]["turn"] == "turned by 90°"
    assert found["examples"]["test turned"][0]["turn"] == "mirrored and turned by 90°"


def test_a_clean_set_has_none():
    images, labels = clean((120, 40, 60))
    pool = pool_of(made(images, labels))
    pairs = find_pairs(pool)
    assert len(pairs) == 0 and pairs.complete and pairs.compared == 220
    found = overlap(pool, pairs)
    assert not any(found["pairs"].values()) and not any(found["examples"].values())


def test_a_colour_copy_is_found_too():
    rng = np.random.default_rng(0)
    images, labels = clean()
    coloured = {
        name: np.clip(part[..., None] * np.array([1.0, 0.8, 0.6]), 0, 255).astype(np.uint8)
        for name, part in images.items()
    }
    noise = rng.normal(0, 2, coloured["val"][0].shape)
    coloured["val"][0] = np.clip(coloured["train"][7] + noise, 0, 255).astype(np.uint8)
    found = audit(made(coloured, labels))["alike"]
    assert found["seen"]["val"]["images"] == 1 and found["seen"]["val"]["equal"] == 0
    assert found["conflicts"]["pairs"] == 1  # train/7 is ill, val/0 calm


def test_pairs_are_those_of_the_definition():
    """All pairs of a set full of near copies, held against a loop over all pairs and turns."""
    rng = np.random.default_rng(0)
    base = pictures(6, 4, 32, 32).astype(float)
    noisy = np.concatenate([base + rng.normal(0, spread, base.shape) for spread in (0, 1, 2, 3, 4, 5)])
    images = np.clip(noisy, 0, 255).astype(np.uint8)
    parts = dict(zip(("train", "val", "test"), np.split(images, [20, 28])))
    pool = pool_of(made(parts, {name: np.arange(len(part)) % 2 for name, part in parts.items()}))
    found = find_pairs(pool)
    expected = {}
    for first in range(len(images)):
        for second in range(first + 1, len(images)):
            for number, (_, turn) in enumerate(TURNS):
                one, other = turn(images[[first]])[0], images[second]
                correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
                if correlation < LIKELY:
                    continue
                bits = sum(a != b for a, b in zip(slow_hash(one), slow_hash(other)))
                if correlation >= SURE or bits <= MOST_BITS:
                    expected.setdefault((first, second), (number, round(correlation, 9), bits))
    got = {
        (int(a), int(b)): (int(turn), round(float(r), 9), int(bits))
        for a, b, turn, r, bits in zip(found.first, found.second, found.turns, found.correlation, found.bits)
    }
    assert got == expected
    assert 10 < len(expected) < 15 * 36 and len({bits for _, _, bits in expected.values()}) > 2


def slow_hash(image):
    """The hash by its definition: sums of cosines, one wave after the other (32 × 32 pixels)."""
    side = 32
    place = (np.arange(side) + 0.5) * math.pi / side
    scale = [math.sqrt(1 / side), *[math.sqrt(2 / side)] * 7]
    waves = [
        scale[v] * scale[u] * (np.cos(v * place)[:, None] * np.cos(u * place)[None] * image).sum()
        for v in range(8)
        for u in range(8)
    ][1:]
    middle = sorted(waves)[31]
    return [wave > middle for wave in waves]


def test_hash_and_correlation_do_not_see_brightness():
    images = pictures(3, 5, 32, 32)
    darker = (images // 2 + 7).astype(np.uint8)
    assert (hashes(images) != hashes(darker)).sum() <= 3
    assert (correlations(images, darker) > 0.999).all()
    flat = np.full((1, 32, 32), 9, dtype=np.uint8)
    assert correlations(flat, images[:1]).tolist() == [0.0]


def test_images_without_contrast_are_alike_to_nothing():
    images, labels = clean()
    images["train"][:3] = 7
    images["test"][:2] = 7
    found = audit(made(images, labels))
    assert not any(found["alike"]["pairs"].values())
    assert found["looks"]["constant"] == {
        "count": 5, "names": ["train/0", "train/1", "train/2", "test/0", "test/1"]
    }  # fmt: skip


def test_some_images_are_compared_with_all():
    images, labels = clean((30, 10, 10))
    images["train"][3] = brighter(images["train"][20])
    images["val"][4] = brighter(images["train"][8])
    images["test"][1] = brighter(images["val"][7])
    images["test"][9] = images["train"][0][:, ::-1]
    pool = pool_of(made(images, labels))
    whole, later = find_pairs(pool), find_pairs(pool, np.arange(30, 50))
    assert sorted(zip(whole.first, whole.second)) == [(0, 49), (3, 20), (8, 34), (37, 41)]
    assert sorted(zip(later.first, later.second)) == [(0, 49), (8, 34), (37, 41)] and later.compared == 20
    images["train"][3] = images["train"][20]
    equal = find_pairs(pool_of(made(images, labels)), np.arange(30, 50))
    assert sorted(zip(equal.first, equal.second)) == [(0, 49), (3, 20), (8, 34), (37, 41)]
    alone = find_pairs(pool, np.array([34, 41]))
    assert sorted(zip(alone.first, alone.second)) == [(8, 34), (37, 41)]
    assert sorted(zip(*(getattr(find_pairs(pool, turns=1), side) for side in ("first", "second")))) == [
        (3, 20), (8, 34), (37, 41)
    ]  # fmt: skip


def test_a_search_that_finds_too_much_ends_and_says_so():
    images, labels = clean((30, 10, 10))
    for part in images.values():
        part[:] = np.clip(pictures(1, 9)[0] + np.random.default_rng(0).integers(0, 3, part.shape), 0, 255)
    pairs = find_pairs(pool_of(made(images, labels)), most=100)
    assert not pairs.complete
    assert limits(overlap(pool_of(made(images, labels)), pairs)) == [
        "images differ so little from each other that not all look-alikes could be listed"
    ]
    assert find_pairs(pool_of(made(images, labels))).complete


def test_a_thinned_pool_is_that_of_evenly_spaced_images():
    images, labels = clean((30, 10, 10))
    data = made(images, labels)
    whole, thin = pool_of(data), pool_of(data, 7)
    assert thin.ids.tolist() == ["train/0", "train/8", "train/16", "train/24", "val/3", "test/1", "test/9"]
    for pool in (thinned(whole, 7), thin):
        assert (pool.ids == thin.ids).all() and (pool.copies == thin.copies).all()
        assert (pool.splits == [0, 0, 0, 0, 1, 2, 2]).all() and (pool.labels == thin.labels).all()
    assert (pool_of(data, 60).ids == whole.ids).all() and len(thinned(whole, 60)) == 50


def test_clusters_are_chains_of_look_alikes():
    images, labels = clean((30, 10, 10))
    images["train"][3] = images["train"][20]
    images["val"][4] = images["train"][20]
    images["test"][1] = images["test"][8]
    pool = pool_of(made(images, labels))
    found = clusters(len(pool), find_pairs(pool))
    assert found[3] == found[20] == found[34] and found[41] == found[48] != found[3]
    assert len(set(found)) == 50 - 3


def test_the_short_form_of_a_large_set_says_what_it_left_out(monkeypatch):
    images, labels = clean((60, 20, 20))
    images["val"][0] = images["train"][11]
    images["test"][7] = images["train"][5]
    monkeypatch.setattr("study.audit.findings.BUDGET", 1_000)
    found = short_audit(made(images, labels))
    assert found["form"] == "short" and "probe" not in found
    assert limits(found["alike"]) == [
        "look-alikes were sought for 10 val and test images, evenly spaced, among all 100, and equal pixels among all",
        "copies mirrored, upside down, turned by 180°, turned by 90° and mirrored and turned by 90° were not sought: "
        "python -m study.audit does",
    ]
    assert notices({"sets": {"made": found}}, {})[-1].line.startswith("made: copies mirrored")
    assert limits(audit(made(images, labels))["alike"]) == []
    assert found["alike"]["compared"] == 10 and found["alike"]["images"] == 100
    # Equal pixels are found among all, whatever is compared.
    assert found["alike"]["seen"]["val"]["equal"] == found["alike"]["seen"]["test"]["equal"] == 1
