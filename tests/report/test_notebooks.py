"""The notebooks: without outputs, a screen of code each, and executed on small records of their studies."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
from ledger_fixture import Design, write_ledger
from test_explanations import write_explanations

from analysis.report.evidence import load_evidence
from analysis.report.figures.response import response
from analysis.run_notebooks import NOTEBOOKS, execute, main, run_notebook, stored_studies
from study.file.reading import load_study

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["downsampling", "fusion", "joint_search", "scan_directions", "split_ratio"]
SCREEN = 45

# Differences from the base as records hold them, skill, relative cost.
VARIANTS = {
    "split_ratio": {
        "split_ratio=0": ({"branches": [[1.0, "conv"]]}, 0.8, 1.0),
        "split_ratio=0.25": ({"branches": [[0.75, "conv"], [0.25, "ss2d"]]}, 1.1, 1.1),
        "baseline": ({}, 1.3, 1.25),
    },
    "fusion": {
        "baseline": ({}, 1.3, 1.0),
        "fusion=concat": ({"fusion": "concat"}, 1.2, 1.0),
        "fusion=attention": ({"fusion": "attention"}, 1.3, 1.4),
    },
    "scan_directions": {
        "baseline": ({}, 1.3, 1.0),
        "scan_directions=eight": ({"scan_directions": "eight"}, 1.3, 1.8),
        "scan_directions=[rows]": ({"scan_directions": ["rows"]}, 0.9, 0.6),
    },
    "downsampling": {
        "baseline": ({}, 1.3, 1.0),
        "downsampling=max_pool": ({"downsampling": "max_pool"}, 1.2, 0.8),
    },
    "joint_search": {
        "baseline": ({}, 1.2, 1.0),
        "d_state=2": ({"d_state": 2}, 1.1, 0.5),
        "fusion=concat, expand=1.5": ({"fusion": "concat", "expand": 1.5}, 1.3, 1.6),
    },
}


def design(name):
    search = name == "joint_search"
    return Design(
        name=name,
        question=f"What of {name}?",
        variants=VARIANTS[name],
        datasets=("alpha", "beta", "gamma"),
        seeds=(0, 1),
        images=40,
        metrics=("macro_auc_ovr", "macro_f1") if name == "split_ratio" else ("macro_auc_ovr",),
        contrasts=not search,
        strategy="nsga2" if search else "grid",
        failed=[("baseline", "gamma", 1)],
        missing=[("baseline", "beta", 1)] if search else [],
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store for each study: the fixture's ids are the same in all of them."""
    folder = tmp_path_factory.mktemp("stores")
    for name in NAMES:
        write_ledger(folder / name, design(name))
    for name in ("split_ratio", "scan_directions"):
        path = folder / name / "explanations" / "cell.npz"
        write_explanations(path, np.random.default_rng(0), study=name)
    return folder


@pytest.fixture(scope="module")
def original():
    """What the notebook that the command runs holds before."""
    return (NOTEBOOKS / "fusion.ipynb").read_bytes()


@pytest.fixture(scope="module")
def commanded(stores, original):
    """What the command prints that runs one notebook of two, for the store has no such study as the other's."""
    with redirect_stdout(StringIO()) as out:
        assert main(["fusion", "split_ratio", "--store", str(stores / "fusion")]) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def executed(stores, commanded):
    """Every notebook, executed: one by the command, the others in one kernel, for imports take most of the time."""
    joined, lengths = nbformat.v4.new_notebook(), []
    others = [name for name in NAMES if name != "fusion"]
    for name in others:
        cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
        where = {"MEDMAMBA_STORE": str(stores / name), "MEDMAMBA_STUDY": name}
        fresh = f"%reset -f\nimport os\nos.environ |= {where!r}"
        joined.cells += [nbformat.v4.new_code_cell(fresh), *cells]
        lengths.append(len(cells) + 1)
    execute(joined, NOTEBOOKS, stores, "")
    ends = np.cumsum(lengths)
    copies = {
        name: nbformat.v4.new_notebook(cells=joined.cells[end - length : end])
        for name, end, length in zip(others, ends, lengths)
    }
    return copies | {"fusion": nbformat.read(stores / "fusion" / "notebooks" / "fusion.ipynb", as_version=4)}


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(notebook):
    """Everything a reader can read in the outputs."""
    parts = []
    for output in outputs(notebook):
        parts.append(output.get("text", ""))
        parts += [output.get("data", {}).get(kind, "") for kind in ("text/markdown", "text/plain")]
    return "\n".join(parts)


def test_there_is_a_notebook_a_study():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == NAMES
    assert {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")} >= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_bare_and_short(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert outputs(notebook) == []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None for cell in code)
    assert not any(cell.metadata for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert sum(bool(line.strip()) for cell in code for line in cell.source.splitlines()) <= SCREEN
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = [line for line in prose.splitlines() if line.startswith("#")]
    assert headings[0].endswith("?") and headings[0].startswith("# ")
    assert headings[-1] == "## What is not claimed"
    assert {"## Data", "## Contrasts", "## Figures"} <= set(headings)
    assert f"python -m study.launch search_spaces/{name}.yaml" in prose


def test_a_notebook_with_outputs_would_be_seen():
    notebook = nbformat.read(NOTEBOOKS / "fusion.ipynb", as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="done")]
    assert outputs(notebook) != []


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_shows(name, executed):
    notebook = executed[name]
    assert not [
        output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"
    ]
    text = text_of(notebook)
    cells = 3 * 2 * len(VARIANTS[name])
    gone = 2 if name == "joint_search" else 1
    assert f"{cells - gone} cells are done, {gone} are not" in text
    pictures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    # Forests and two cost figures; in the four grids also the response of one metric or two.
    contrasts = 0 if name == "joint_search" else len(design(name).metrics) * (len(VARIANTS[name]) - 1)
    assert len(pictures) >= contrasts + 2 + (name != "joint_search")
    assert "Traceback" not in text
    if name == "joint_search":
        assert "verdict" not in text.lower()
    else:
        assert "P(false claim)" in text
        assert "test images drawn anew" in text


def test_explanations_show_where_there_are_some(executed):
    assert "pointing game" in text_of(executed["split_ratio"])
    assert "'bottom_right'" in text_of(executed["scan_directions"])


def test_the_search_prints_a_study_that_loads(executed, tmp_path):
    text = text_of(executed["joint_search"])
    start = text.index("question: Do the variants")
    file = tmp_path / "again.yaml"
    file.write_text(text[start:].partition("\n\n")[0] + "\n")
    again = load_study(file, datasets="phantom_mri")
    assert len(again.variants()) > 1
    assert min(again.seeds) > max(design("joint_search").seeds)


def test_the_command_leaves_executed_copies_in_the_store(stores, commanded, original):
    store = stores / "fusion"
    assert f"split_ratio: no such study in {store}, passed over" in commanded
    copy = nbformat.read(store / "notebooks" / "fusion.ipynb", as_version=4)
    assert "P(false claim)" in text_of(copy)
    assert (NOTEBOOKS / "fusion.ipynb").read_bytes() == original


def test_a_notebook_that_fails_is_told_and_kept(stores, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("raise KeyError('gone')", id="a")])
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    problem = run_notebook(tmp_path / "broken.ipynb", tmp_path / "copy.ipynb", stores / "fusion", "fusion")
    assert problem == "KeyError: 'gone'"
    assert nbformat.read(tmp_path / "copy.ipynb", as_version=4).cells[0].outputs[0].output_type == "error"


def test_wrong_options_are_one_line(stores, tmp_path, capsys):
    assert main(["fusions", "--store", str(stores / "fusion")]) == 2
    assert "NAME must be one of downsampling, fusion" in capsys.readouterr().err
    assert main(["--store", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}") and error.count("\n") == 1


def test_two_studies_of_one_name_are_both_found(tmp_path):
    write_ledger(tmp_path, design("fusion"))
    first = next((tmp_path / "ledger" / "studies").glob("*.json"))
    first.with_stem("f" * 16).write_text(first.read_text())
    assert stored_studies(tmp_path) == {"fusion": sorted([first.stem, "f" * 16])}


def test_a_response_is_paired_by_data_set(stores):
    study = load_evidence(stores / "split_ratio", "split_ratio")
    done = study.done()
    positions = {variant_id: float(place) for place, variant_id in enumerate(study.variants)}
    drawing = response(study, "macro_auc_ovr", positions, "share of the scan")
    # By hand: seeds that both finished, averaged on each data set, then over data sets.
    cells = done.pivot_table(index=["dataset", "seed"], columns="variant_id", values="test.macro_auc_ovr").dropna()
    means = cells.groupby("dataset").mean().mean()
    first, baseline = next(iter(study.variants)), study.baseline
    assert f"split_ratio=0 at 0: {means[first] - means[baseline]:+.4f}".replace("-", "−") in drawing.alt
    assert "baseline at 2: +0.0000" in drawing.alt
    assert "n = 3" in drawing.caption and "not a test" in drawing.caption
    with pytest.raises(ValueError, match="baseline must be among the variants"):
        response(study, "macro_auc_ovr", {first: 0.0}, "share of the scan")
