"""Tables as papers print them: the same numbers from every form, and one line for what is no table."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import as_table

from analysis.compare.printed import as_shares, plain, read_printed
from analysis.rendering.tables import to_latex, to_markdown
from analysis.report.tables.results import results_table

DEMSAR = Path(__file__).resolve().parents[2] / "analysis" / "selftest" / "data" / "demsar_table6.csv"
SEGMENTATION = Path(__file__).resolve().parent / "data" / "medsegbench_f1.tex"


def rows_of(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return list(csv.reader(lines))


def written(tmp_path, text, name="table.txt"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def marked_up(rows, cell, head, row_end, lead="", middle=""):
    """A table's text from its rows: `cell` marks a number up, given whether it is the best of its row."""
    lines = [lead + head.join(rows[0]) + row_end]
    for name, *values in rows[1:]:
        best = max(values, key=float)
        lines.append(lead + head.join([name, *(cell(value, value == best) for value in values)]) + row_end)
    return "\n".join([lines[0], *([middle] if middle else []), *lines[1:]])


def latex(rows):
    body = marked_up(
        rows,
        lambda value, best: rf"$\mathbf{{{value}}}\pm.01$ (2)" if best else rf"\underline{{{value}}} $\pm$ 0.01",
        " & ",
        r" \\",
        middle=r"\midrule",
    )
    return rf"\begin{{tabular*}}{{\textwidth}}{{@{{}}l*{{4}}{{c}}@{{}}}}\toprule {body} \bottomrule\end{{tabular*}}"


def markdown(rows):
    rule = "| --- " * len(rows[0]) + "|"
    return marked_up(rows, lambda value, best: f"**{value}**" if best else value, " | ", " |", "| ", rule)


def german(rows):
    return marked_up(rows, lambda value, _: value.replace(".", ","), ";", "")


@pytest.mark.parametrize("form", [latex, markdown, german])
def test_every_form_gives_the_same_numbers(form, tmp_path):
    rows, found = rows_of(DEMSAR), read_printed(DEMSAR)
    assert len(found.values) == 14 * 4 and found.values["cmc", "C4.5+m"] == 0.661 and found.spreads == {}
    other = read_printed(written(tmp_path, form(rows)))
    assert other.values == found.values
    assert (other.datasets, other.methods) == (found.datasets, found.methods)
    assert set(other.spreads.values()) == ({0.01} if form is latex else set())


def test_methods_may_be_rows(tmp_path):
    rows = rows_of(DEMSAR)
    turned = [list(column) for column in zip(*rows)]
    text = "\n".join(",".join(row) for row in turned)
    straight, found = read_printed(DEMSAR), read_printed(written(tmp_path, text), rows="methods")
    assert found.values == straight.values and set(found.methods) == set(straight.methods)
    by_heading = read_printed(written(tmp_path, text.replace("dataset,", "Method,", 1)))
    assert by_heading.values == straight.values


def test_a_published_benchmark_with_gaps_spreads_and_a_line_of_averages():
    found = read_printed(SEGMENTATION)
    assert (len(found.datasets), len(found.methods), len(found.values)) == (38, 6, 211)
    assert found.left_out == ("Average",) and "mit_b0" in found.methods
    assert found.values["busi", "efficientnet-b0"] == 71.05 and found.spreads["busi", "efficientnet-b0"] == 2.26
    assert ("busi", "mit_b0") not in found.values
    # The printed averages are those of the values read.
    for method, average in {"resnet18": 70.93, "densenet121": 71.84, "mit_b0": 57.61}.items():
        values = [value for (_, column), value in found.values.items() if column == method]
        assert np.mean(values) == pytest.approx(average, abs=0.006)


@pytest.mark.parametrize("write", [to_latex, to_markdown])
@pytest.mark.parametrize("n_datasets", [4, 11])
def test_our_own_table_is_read_back(write, n_datasets, tmp_path):
    values = np.random.default_rng(n_datasets).uniform(0.5, 0.9, (n_datasets, 3, 2))
    labels = {f"v{i}": f"net_{i} [a, b]" for i in range(3)}
    table = results_table(as_table(values), "macro_f1", labels)
    text = write(table)
    if write is to_markdown:
        text = text[text.index("\n| ") :]
    found = read_printed(written(tmp_path, text), rows="methods" if n_datasets == 4 else "datasets")
    assert set(found.datasets) == {f"d{i}" for i in range(n_datasets)} and set(found.methods) == set(labels.values())
    for (dataset, method), value in found.values.items():
        cell = values[int(dataset[1:]), int(method[4])]
        assert value == pytest.approx(cell.mean(), abs=0.00051)
        assert found.spreads[dataset, method] == pytest.approx(cell.std(ddof=1), abs=0.00051)
    assert {"average", "rank"} <= set(found.left_out)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (r"\textbf{91.2}$_{\pm 0.3}$", "91.2 ± 0.3"),
        (r"\cellcolor{gray!20}\underline{\textbf{0.91}}", "0.91"),
        (r"$0.91^{\dagger}$", "0.91"),
        (r"\textcolor{red}{91.2\%}", "91.2%"),
        (r"ResNet-18~\cite{he2016}", "ResNet-18"),
        (r"mit\_b0", "mit_b0"),
        ("**0.91** &plusmn; 0.02", "0.91 ± 0.02"),
        ("<b>0.91</b><sup>a</sup>", "0.91"),
        (r"$-$0.3", "-0.3"),
        ("net_a_1", "net_a_1"),
    ],
)
def test_marks_are_taken_off(cell, shown):
    assert plain(cell) == shown


@pytest.mark.parametrize(
    ("values", "unit", "is_percent", "lower", "factor"),
    [
        ([0.2, 1.0], None, False, False, 1.0),
        ([0.2, 61.0], None, False, False, 0.01),
        # An error of 0.4 mm to 61 mm is no percentage, unless the table says so.
        ([0.4, 61.0], None, False, True, 1.0),
        ([0.4, 61.0], None, True, True, 0.01),
        ([0.4, 161.0], None, False, False, 1.0),
        ([0.4, 0.9], "percent", False, False, 0.01),
    ],
)
def test_percentages_become_shares(values, unit, is_percent, lower, factor):
    assert as_shares(values, unit, is_percent, lower)[0] == factor


def test_two_rows_of_headings_are_joined(tmp_path):
    text = r"""\begin{tabular}{lcccc} & \multicolumn{2}{c}{ResNet} & \multicolumn{2}{c}{ConvNeXt} \\
    \cmidrule(lr){2-3} Data & S & L & S & L \\ \midrule
    \multicolumn{5}{c}{\emph{Ultrasound}} \\
    busi & .81 & .82 & .83 & n/a \\ tn3k & .7 & .71 & .72 & .73* \\ \end{tabular}"""
    found = read_printed(written(tmp_path, text))
    assert found.methods == ("ResNet S", "ResNet L", "ConvNeXt S", "ConvNeXt L")
    assert found.datasets == ("busi", "tn3k") and len(found.values) == 7
    assert found.values["tn3k", "ConvNeXt L"] == 0.73


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a table with a heading, a row and two columns at least, got 0 rows"),
        ("data,a,b\nx,1,2\nx,3,4\n", "every row must have a name of its own, got 'x' 2 times"),
        ("data,a,a\nx,1,2\n", "every column must have a name of its own, got 'a' 2 times"),
        ("data,a,b\nx,1,about 2\n", "a cell must be a number or empty, got 'about 2' in row x, column b"),
        ("data,a,b\nx,1\ny,1,2\n", "rows must have 3 columns as the heading, got 2 in row 1"),
        ("data,a,b\nx,-,n/a\ny,a,b\n", "must have headings above rows of numbers"),
        ("data,mean,rank\nx,1,2\n", "must hold a number for some data set and method, got none"),
    ],
)
def test_what_is_no_table_is_one_line(text, message, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        read_printed(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("values", "unit"), [([0.2, 7.0], "share"), ([-1.0, 7.0], "percent")])
def test_a_unit_that_cannot_be_is_one_line(values, unit):
    with pytest.raises(ValueError, match=f"values must be of the unit {unit}, got"):
        as_shares(values, unit, False, False)


def test_the_table_has_what_the_cells_say():
    values = np.array([[[0.5, 0.7], [0.6, 0.9]], [[0.2, np.nan], [0.4, 0.3]], [[0.1, 0.2], [np.nan, np.nan]]])
    table = as_table(values).assign(**{"cost.params": 5e5, "cost.macs": 2e7})
    found = results_table(table, "macro_f1", {"v0": "one", "v1": "two"})
    assert list(found.headers) == ["variant", "d0", "d1", "d2", "average", "rank", "parameters", "MACs"]
    one, two = found.rows
    # On d1 the seeds that both have, on d2, which one lacks, what there is; the average leaves d2 out.
    assert one == ["one", "0.600 ± 0.141", "0.200", "0.150 ± 0.071", "0.400", "2.00", "500 k", "20 M"]
    assert two == ["two", "0.750 ± 0.212", "0.400", "–", "0.575", "1.00", "500 k", "20 M"]
    assert "Not in them, for a gap: d2." in found.caption
    assert isinstance(found.data, pd.DataFrame) and found.data["d1_seeds"].tolist() == [1, 1]
