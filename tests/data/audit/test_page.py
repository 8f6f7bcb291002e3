"""The page of an audit: every pair and image found is shown with its name, links lead to files, nothing is fetched."""

import re
from html import unescape

import numpy as np
import pytest
from made_images import clean, made, pictures
from matplotlib.image import imread

from analysis.audits import remarks
from study.audit.findings import audit
from study.audit.written import write


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of an audit of two sets: one with every kind of fault, and a clean one."""
    images, labels = clean((60, 20, 24))
    images["test"][5] = images["train"][8]
    images["test"][6] = images["train"][10][:, ::-1]
    images["train"][30], images["train"][31] = images["train"][32], 90
    images["val"][2, :6] = 0
    other, its_labels = clean((20, 8, 8), seed=5)
    sets = [made(images, labels), made(other, its_labels)]
    folder = tmp_path_factory.mktemp("audit")
    audited = [(data, {**audit(data), "name": f"set {place}"}) for place, data in enumerate(sets)]
    return folder, audited, write(audited[:1], [], folder / "one"), write(audited, [], folder / "two")


def test_every_finding_is_shown(written):
    folder, audited, places, _ = written
    text = unescape(places["page"].read_text())
    for remark in remarks(audited[0][1]):
        assert remark.text[1:] in text.replace("\N{NO-BREAK SPACE}", " ")
    figures = {path.stem: path for path in (folder / "one" / "figures").glob("*.svg")}
    assert set(figures) == {
        "made_test", "made_test_turned", "made_conflicts", "made_within", "made_constant", "made_borders"
    }  # fmt: skip
    for words in ("test/5", "train/8", "calm", "ill", "equal"):
        assert f">{words}<" in figures["made_test"].read_text()
    assert "r = 1.0000, mirrored" in figures["made_test_turned"].read_text()
    assert "train/31" in figures["made_constant"].read_text() and "val/2" in figures["made_borders"].read_text()
    assert "All 2 pairs" not in text and "1 pair. Left the image of test, right the earlier one." in text


def test_the_pictures_are_those_of_the_set(written):
    folder = written[0]
    drawn = imread(folder / "one" / "figures" / "made_test.png")[..., :3].mean(axis=-1)
    height, width = drawn.shape
    left, right = drawn[:, : width // 4], drawn[:, width // 4 : width // 2]
    # Both halves of an equal pair show the same grey levels, as often.
    levels = [np.histogram(part[part < 0.9], bins=8, range=(0, 0.9))[0] for part in (left, right)]
    assert np.abs(levels[0] - levels[1]).max() < 0.1 * levels[0].max()
    assert height > 100 and len(np.unique(left)) > 50


def test_a_page_needs_nothing_but_its_own_files(written):
    folder, _, one, two = written
    for place, paths in (("one", one), ("two", two)):
        text = paths["page"].read_text()
        links = re.findall(r'(?:href|src)="([^"#]+)"', text)
        files = [link for link in links if not link.startswith("data:")]
        assert files and all((folder / place / link).is_file() for link in files)
        assert "<script" not in text and "http://" not in re.sub(r"xmlns(:\w+)?=\"[^\"]+\"", "", text)
    assert "2 data sets" not in text and ">made and 1 more<" in text


def test_the_same_findings_give_the_same_bytes(written, tmp_path):
    _, audited, one, _ = written
    again = write(audited[:1], [], tmp_path)
    assert again["page"].read_bytes() == one["page"].read_bytes()
    assert again["findings"].read_bytes() == one["findings"].read_bytes()


def test_many_pairs_are_shown_from_both_ends(tmp_path):
    images, labels = clean((60, 20, 24))
    rng = np.random.default_rng(0)
    for place in range(20):
        noise = rng.normal(0, 0.3 * place, images["test"][place].shape)
        images["test"][place] = np.clip(images["train"][2 * place] + noise, 0, 255)
    data = made(images, labels)
    found = audit(data)
    total = found["alike"]["pairs"]["test"]
    assert 10 < total <= 20
    shown = found["alike"]["examples"]["test"]
    assert [pair["correlation"] for pair in shown] == sorted((p["correlation"] for p in shown), reverse=True)
    write([(data, found)], [], tmp_path)
    text = (tmp_path / "figures" / "made_test.svg").read_text()
    named = [pair["images"][0] for pair in (*shown[:4], *shown[-4:])]
    assert all(f">{name}<" in text for name in named) and shown[6]["images"][0] + "<" not in text
    page = (tmp_path / "report.html").read_text()
    assert f"8 of {total} pairs: above the most, below the least alike." in page.replace("\N{NO-BREAK SPACE}", " ")


def test_names_of_any_script_are_shown(tmp_path):
    images = {"train": pictures(8, 1), "val": pictures(4, 2), "test": pictures(4, 3)}
    images["test"][1] = images["train"][2]
    labels = {name: np.arange(len(part)) % 2 for name, part in images.items()}
    data = made(images, labels, classes=("良性 <&>", "$x_1$"))
    write([(data, audit(data))], [], tmp_path)
    assert "良性 &lt;&amp;&gt;" in (tmp_path / "report.html").read_text()
