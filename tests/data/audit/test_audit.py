"""The audit of a data set: classes, borders, colour, the probe, its sentences and its command."""

import json

import numpy as np
import pytest
from made_images import HEIGHT, WIDTH, clean, made, pictures
from PIL import Image

from analysis.audits import faults, remarks
from study.audit.command_line import main
from study.audit.findings import audit, short_audit
from study.audit.lines import lines
from study.audit.pixels import borders
from study.data import open_source


def test_a_clean_set_has_no_fault():
    images, labels = clean()
    for form in (audit, short_audit):
        found = form(made(images, labels))
        assert faults(found) == []
        assert json.loads(json.dumps(found)) == found
    assert "  nothing stands in two splits, and no picture bears two labels" in lines(found)


def test_faults_are_counted_and_named():
    images, labels = clean()
    images["val"][3] = images["train"][8]
    images["test"][5] = images["val"][7] // 2 + 60
    images["test"][6] = images["train"][9]
    images["test"][8] = images["train"][12][:, ::-1]
    images["train"][1] = images["train"][2]
    images["train"][3] = images["train"][5]
    found = audit(made(images, labels))
    assert faults(found) == [
        "2 of 16 test images have a look-alike in train or val (1 with equal pixels): test/6 and train/9",
        "1 more of 16 test images has a mirrored or turned copy in train or val: test/8 and train/12 (mirrored)",
        "1 of 12 val images has equal pixels in train: val/3 and train/8",
        "3 pairs of look-alikes with two labels (3 with equal pixels): test/6 (calm) and train/9 (ill)",
    ]
    assert (
        "images that share no group with a look-alike in their own split: train 4; intervals that take them for "
        "independent are too narrow: train/5 and train/3"
    ) in [remark.text for remark in remarks(found)]


def test_images_of_one_group_may_look_alike():
    images, labels = clean()
    images["train"][1] = images["train"][3]
    groups = {name: 100 * place + np.arange(len(part)) for place, (name, part) in enumerate(images.items())}
    apart = audit(made(images, labels, groups))["alike"]["within"]
    groups["train"][1] = groups["train"][3]
    assert apart == {"train": 2, "val": 0, "test": 0}
    found = audit(made(images, labels, groups))
    assert found["alike"]["within"] == {"train": 0, "val": 0, "test": 0}
    assert found["groups"]["counts"] == {"train": 39, "val": 12, "test": 16}


def test_a_class_that_a_split_lacks_is_named():
    images, _ = clean()
    labels = {name: np.arange(len(part)) % 3 for name, part in images.items()}
    labels["val"][labels["val"] == 2] = 0
    found = audit(made(images, labels, classes=("calm", "ill", "worse")))
    assert faults(found) == []
    assert "classes without an image: worse in val" in [remark.text for remark in remarks(found)]
    assert found["class_counts"]["val"] == {"calm": 8, "ill": 4, "worse": 0}
    assert ["calm", "14", "8", "6"] in [line.split() for line in lines(found)]


def test_borders_are_bands_of_one_colour():
    images = np.repeat(pictures(4, 3)[..., None], 3, axis=3)
    images[1, :6] = 0
    images[1, :, -9:] = 0
    images[2, 3:-3, 4:-4] = 90
    images[3, :2] = np.random.default_rng(0).integers(0, 4, (2, WIDTH, 3))
    area = HEIGHT * WIDTH
    expected = [0, 1 - (HEIGHT - 6) * (WIDTH - 9) / area, 0, 1 - (HEIGHT - 2) * WIDTH / area]
    assert borders(images) == pytest.approx(expected)


def test_borders_of_one_class_are_told():
    images, labels = clean((60, 20, 20))
    for name, part in images.items():
        part[labels[name] == 1, :4] = 0
    found = audit(made(images, labels))
    border = found["looks"]["borders"]
    assert border["count"] == 50 and border["by_class"] == {"calm": 0.0, "ill": 1.0} and border["tell"]
    assert border["area"] == pytest.approx(4 / HEIGHT, abs=1e-4)
    (said,) = [remark.text for remark in remarks(found) if "uniform bands" in remark.text]
    assert said.startswith("50 of 100 images have uniform bands at their edges (13 % of the area): ")
    assert said.endswith("; they tell classes apart: 100 % of ill, 0 % of calm")
    # All images alike in this tell nothing.
    for part in images.values():
        part[:, :4] = 0
    assert not audit(made(images, labels))["looks"]["borders"]["tell"]


def test_odd_images_are_counted_and_named():
    images, labels = clean()
    images["train"][4] = 80
    images["val"][1] = np.where(pictures(1, 5)[0] > 60, 255, 10)
    images["test"][2] = 0
    images["test"][2, 3, 4] = 200
    images["test"][3] = 100 + pictures(1, 6)[0] // 100
    looks = audit(made(images, labels))["looks"]
    assert {kind: looks[kind]["names"] for kind in ("constant", "faint", "saturated", "black")} == {
        "constant": ["train/4"],
        "faint": ["test/3"],
        "saturated": ["val/1"],
        "black": ["test/2"],
    }


def test_grey_images_among_coloured_ones_are_told():
    images, labels = clean((60, 20, 20))
    coloured = {name: np.stack([part, part // 2, part // 3], axis=-1) for name, part in images.items()}
    for name, part in coloured.items():
        grey = (labels[name] == 1) & (np.arange(len(part)) % 4 == 1)
        part[grey] = images[name][grey][..., None]
    found = audit(made(coloured, labels))
    assert found["looks"]["colour"] == {"channels": 3, "grey": 25, "by_class": {"calm": 0.0, "ill": 0.5}, "tell": True}
    assert any(remark.text.startswith("25 of 100 images are grey among coloured ones") for remark in remarks(found))


def brightness(n_each, seed):
    """Images whose class is their brightness, and labels."""
    images = pictures(2 * n_each, seed)
    labels = np.arange(2 * n_each) % 2
    return (images // 2 + 60 * labels[:, None, None]).astype(np.uint8), labels


def test_the_probe_says_too_easy():
    parts = {name: brightness(n, seed) for seed, (name, n) in enumerate((("train", 60), ("val", 20), ("test", 40)))}
    images, labels = ({name: part[place] for name, part in parts.items()} for place in (0, 1))
    found = audit(made(images, labels))
    probe = found["probe"]
    assert probe["value"] == 1.0 and probe["too_easy"] and not probe["at_chance"] and probe["chance"] == 0.5
    assert probe["over"] == "test images" and probe["n"] == 80


def test_the_probe_says_chance():
    images, labels = clean((120, 40, 80))
    probe = audit(made(images, labels))["probe"]
    low, high = probe["interval"]
    assert probe["at_chance"] and not probe["too_easy"] and low < 0.5 and low < probe["value"] < high
    assert any("no better than chance" in remark.text for remark in remarks(audit(made(images, labels))))


def save(path, images, labels, **extra):
    arrays = {f"{name}_images": part for name, part in images.items()}
    np.savez(path, **arrays, **{f"{name}_labels": part for name, part in labels.items()}, **extra)


def test_the_command_tells_and_keeps_what_it_found(tmp_path, capsys):
    images, labels = clean()
    save(tmp_path / "good.npz", images, labels)
    images["test"][1] = images["train"][0]
    save(tmp_path / "leaky.npz", images, labels)
    save(tmp_path / "wrong.npz", images, {name: part - 1 for name, part in labels.items()})
    place = ["--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["good", *place]) == 0
    assert main(["good", "leaky", *place]) == 1
    out = capsys.readouterr().out
    assert "! 1 of 16 test images has equal pixels in train or val: test/1 and train/0" in out.splitlines()
    kept = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert list(kept["sets"]) == ["good", "leaky"]
    # Both have nearly all of their pictures in common.
    assert "! good and leaky: 67 of 68 and 68 of 68 images show the same pictures" in out
    assert kept["shared"][0]["images"] == [67, 68]
    assert kept["sets"]["leaky"]["alike"]["seen"]["test"]["images"] == 1
    # A wrong file does not keep the others from being audited.
    assert main(["wrong,leaky", *place]) == 2
    caught = capsys.readouterr()
    assert caught.err.startswith(f"error: {tmp_path / 'wrong.npz'}: train_labels") and "leaky: 68 images" in caught.out


def test_wrong_options_are_told_in_one_line(tmp_path, capsys):
    for options, problem in (
        (["phantom_ct", "--set", "recipe.epochs=3"], "--set must name a key of source, such as source.image_size, got"),
        (["phantom_ct", "--set", "source.sise=3"], "--set source.sise must be one of source.kind, "),
        (["phantom_ct", "--set", "source.image_size=no"], "--set source.image_size must be "),
        (["busi", "--data-root", str(tmp_path)], f"{tmp_path}: must hold the data set 'busi'"),
    ):
        assert main(options) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {problem}") and error.count("\n") == 1


def folder_of(path, images, labels, sizes):
    """A folder of PNG files, some resized: sizes by class."""
    for name, part in images.items():
        for number, image in enumerate(part):
            label = int(labels[name][number])
            file = path / "photos" / name / ("calm", "ill")[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize(sizes[label]).save(file)
    return path


def test_files_of_several_sizes_are_told(tmp_path):
    root = folder_of(tmp_path, *clean((60, 20, 20)), ((WIDTH, HEIGHT), (2 * WIDTH, HEIGHT)))
    Image.new("RGB", (2 * WIDTH, HEIGHT), (200, 100, 50)).save(root / "photos" / "train" / "ill" / "1.png")
    spec = {"kind": "folder", "root": str(root), "image_size": 32}
    found = audit(open_source(spec).load("photos"), spec)
    assert found["files"]["count"] == 100
    assert found["files"]["sizes"] == {
        "kinds": 2, "counts": {"30×36": 50, "30×72": 50}, "by_class": {"calm": 1.0, "ill": 0.0}, "tell": True
    }  # fmt: skip
    assert found["files"]["modes"]["counts"] == {"L": 99, "RGB": 1} and not found["files"]["modes"]["tell"]
    said = [remark.text for remark in remarks(found)]
    assert (
        "100 files of 2 sizes: 30×36 (50) and 30×72 (50); they tell classes apart: 100 % of calm, 0 % of ill are 30×36"
    ) in said
    assert "100 files of 2 kinds of pixels: L (99) and RGB (1)" in said
    # Sets that are no files have nothing to tell.
    assert audit(open_source({"kind": "phantom"}).load("phantom_ct"), {"kind": "phantom"})["files"] is None
