"""Pictures of a process of its own are those of this one, also where it is ended, and its errors are heard here."""

import os
import signal
import subprocess
import sys

import pytest
from ledger_fixture import Design, write_ledger

from analysis.rendering import canvas
from analysis.report.drawing import Drawer, draw_here
from analysis.report.write import write_report

DESIGN = Design(datasets=("alpha", "beta"), seeds=(0, 1), images=24)
MATRIX = ("datasets.confusion_matrices", "alpha", ["one", "two"], {}, {})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_ledger(tmp_path_factory.mktemp("store"), DESIGN)


def files(report):
    return {
        str(path.relative_to(report.folder)): path.read_bytes() for path in report.folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("ended", [False, True])
def test_a_report_has_the_same_bytes_wherever_it_is_drawn(store, tmp_path, ended):
    expected = files(write_report(store, DESIGN.name, tmp_path / "here"))
    with Drawer() as drawer:
        if ended:
            os.kill(drawer._process.pid, signal.SIGKILL)
            drawer._process.join()
        found = files(write_report(store, DESIGN.name, tmp_path / "there", draw=drawer.draw))
    assert found == expected and sum(name.endswith(".png") for name in found) > 5


def test_errors_are_those_of_the_figure():
    assert draw_here(*MATRIX) is None
    with Drawer() as drawer:
        assert drawer.draw(*MATRIX).result() is None
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            drawer.draw("datasets.nothing").result()
        assert drawer.draw(*MATRIX).result() is None
    assert drawer._process.exitcode == 0


def test_who_draws_needs_no_tables_and_who_asks_no_library_that_draws():
    code = (
        "import sys; import analysis.report.write; assert 'matplotlib' not in sys.modules;"
        "[sys.modules.pop(name) for name in list(sys.modules) if name.startswith(('analysis', 'pandas'))];"
        "import analysis.report.figures.claims, analysis.report.figures.datasets;"
        "print([m for m in ('pandas', 'numba', 'scipy.stats', 'scipy.optimize') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_text_is_measured_by_all_that_its_size_hangs_on():
    """Each figure beside others that differ in one thing alone has the bytes that it has when nothing is remembered."""
    looks = [
        {},
        {"fontsize": 9},
        {"rotation": 30},
        {"ha": "right"},
        {"va": "top"},
        {"linespacing": 2.0},
        {"weight": "bold"},
    ]

    def picture(look):
        with canvas.style():
            figure, (axes,) = canvas.new_figure(2)
            axes.text(0.5, 0.5, "two\nlines", **look)
        return canvas.render(canvas.Drawing("one", figure, "a", "b", "c"))

    canvas.LAYOUTS.clear()
    remembered = [picture(look) for look in looks]
    assert len({(p.svg, p.png) for p in remembered}) == len(looks)
    for look, found in zip(looks, remembered):
        canvas.LAYOUTS.clear()
        assert picture(look) == found
