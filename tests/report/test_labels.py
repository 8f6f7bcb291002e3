"""Labels of figures stay distinct and legible: long names that begin and end alike, and scripts without a font."""

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from analysis.rendering import fonts
from analysis.rendering.canvas import Drawing, Text, marks, render
from analysis.report.figures.datasets import confusion_matrices, learning_curves
from analysis.report.tallies import CONFIDENCE_BINS, Tally
from analysis.words import distinct, shortened

LONG = "High squamous intra-epithelial lesion of grade {} in the cervix uteri"


def tally(classes: int) -> Tally:
    counts = np.full(CONFIDENCE_BINS, 4.0)
    return Tally(
        confusion=np.eye(classes) * 5,
        supports=np.full(classes, 5),
        counts=counts,
        hits=counts / 2,
        confidence=counts / 2,
        n_seeds=1,
        n_images=40,
    )


def texts(drawing: Drawing) -> list[str]:
    return [artist.get_text() for artist in drawing.figure.findobj(Text)]


@given(st.lists(st.text(alphabet="ab ", max_size=60), max_size=12), st.integers(14, 30))
def test_different_names_stay_different_and_fit(names, longest):
    short = distinct(names, longest)
    assert len(short) == len(names)
    assert len(set(short)) == len(set(names))
    assert all(len(text) <= longest for text in short)
    assert all(dict(zip(names, short))[name] == text for name, text in zip(names, short))


def test_names_that_need_no_care_are_cut_as_ever():
    names = ["baseline", "a name that is much too long for the margin", "another one that is too long for it"]
    assert distinct(names, 20) == [shortened(name, 20) for name in names]
    assert distinct([LONG.format(2), LONG.format(3)], 20) == ["…e 2 in the cervix …", "…e 3 in the cervix …"]


def test_no_two_variants_share_a_legend_entry():
    ids = {"a": "scan_directions=hilbert, d_state=8, expand=2.0", "b": "scan_directions=hilbert, d_conv=8, expand=2.0"}
    assert shortened(ids["a"], 24) == shortened(ids["b"], 24)
    records = [{"curves": [{"epoch": 0, "val_macro_f1": 0.5}, {"epoch": 1, "val_macro_f1": 0.6}]}]
    drawing = learning_curves("alpha", dict.fromkeys(ids, records), "macro_f1", ids, marks(list(ids), None))
    assert drawing is not None
    (legend,) = drawing.figure.legends
    found = [text.get_text() for text in legend.get_texts()]
    assert len(set(found)) == 2 and "d_state" in found[0] and "d_conv" in found[1]


def test_classes_that_begin_and_end_alike_have_rows_of_their_own():
    classes = [LONG.format(grade) for grade in (1, 2, 3)]
    drawing = confusion_matrices("alpha", classes, {"a": tally(3)}, {"a": "baseline"})
    rows = [label.get_text().rsplit("  ", 1)[0] for label in drawing.figure.axes[0].get_yticklabels()]
    assert len(set(rows)) == 3 and all(f"e {grade} " in row for grade, row in zip((1, 2, 3), rows))


def test_names_without_a_font_are_numbers_with_a_key(monkeypatch):
    monkeypatch.setattr(fonts, "FALLBACKS", ())
    fonts.families.cache_clear()
    fonts._characters.cache_clear()
    drawing = confusion_matrices("数据", ["良性 a", "恶性", "良性"], {"a": tally(3)}, {"a": "基线 good"})
    before = texts(drawing)
    drawn: list[list[str]] = []
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    printed = FigureCanvasAgg.print_png
    monkeypatch.setattr(
        FigureCanvasAgg, "print_png", lambda self, *a, **k: (printed(self, *a, **k), drawn.append(texts(drawing)))
    )
    picture = render(drawing)
    assert all(fonts.numbered(text, {}) == text for text in drawn[-1])
    fonts.families.cache_clear()
    fonts._characters.cache_clear()
    numbers = dict(re.findall(r"(\[\d+\]) for (\w+)", picture.caption))
    assert sorted(numbers.values()) == sorted(["数据", "良性", "恶性", "基线"])
    assert picture.caption.endswith("no installed font has these characters.")
    in_png = drawn[-1]
    for text, shown in zip(before, in_png, strict=True):
        for number, run in numbers.items():
            shown = shown.replace(number, run)
        assert shown == text
    # A page and an SVG keep the names; the figure itself is as before.
    assert texts(drawing) == before and "恶性" in picture.svg
    assert Image.open(io.BytesIO(picture.png)).size[0] > 100


def test_an_installed_fallback_draws_what_the_first_font_lacks(monkeypatch):
    letter = "\ue0d4"
    for fallbacks, expected in ((), "[1]"), (("STIXNonUnicode",), letter):
        monkeypatch.setattr(fonts, "FALLBACKS", fallbacks)
        fonts.families.cache_clear()
        fonts._characters.cache_clear()
        assert fonts.numbered(letter, {}) == expected
    fonts.families.cache_clear()
    fonts._characters.cache_clear()


@pytest.mark.parametrize("text", ["plain", "", "µ × ≥ é, Ж"])
def test_what_the_font_has_stays(text):
    numbers: dict[str, int] = {}
    assert fonts.numbered(text, numbers) == text and fonts.key(numbers) == ""
