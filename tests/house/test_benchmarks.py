"""The benchmarks run and write what they measured, in small; how fast anything is, is not looked at here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medmamba_variants.scan import ss2d_scan

ROOT = Path(__file__).resolve().parents[2]


def test_the_statistics_benchmark_in_small(tmp_path):
    out = tmp_path / "results" / "analysis.json"
    size = ["--images", "150", "--classes", "3", "--seeds", "2", "--draws", "40", "--loop-draws", "2"]
    command = [sys.executable, str(ROOT / "benchmarks" / "analysis.py"), *size, "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    report = json.loads(out.read_text())
    assert report["images"] == 150 and report["machine"]["cores"] >= 1 and report["commit"]
    rows = {row["what"]: row for row in report["rows"]}
    assert list(rows) == [
        "paired bootstrap, macro_f1",
        "randomisation, macro_f1",
        "two-level bootstrap of 2 seeds, macro_f1",
        "paired bootstrap, macro_auc_ovr",
        "randomisation, macro_auc_ovr",
        "two-level bootstrap of 2 seeds, macro_auc_ovr",
        "DeLong, macro_auc_ovr",
    ]
    for name, row in rows.items():
        assert row["seconds"] > 0 and name in run.stdout
        if "loop_seconds" in row:
            assert row["ratio"] > 0 and row["largest_error"] < 1e-12
    assert "≤ 3 s, ≥ 50 ×" in run.stdout and "≤ 0.1 s" in run.stdout


@pytest.mark.slow
def test_the_benchmark_of_mapped_images_in_small(tmp_path):
    out = tmp_path / "data.json"
    size = ["--images", "40", "--seconds", "0.01", "--large", "600", "--steps", "1", "--threads", "1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "data.py"), *size, "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    report = json.loads(out.read_text())
    assert report["memory"]["bytes"] == 600 * 224 * 224 * 3 and report["memory"]["peak"] > 1e8
    assert all(report["throughput"][name] > 0 for name in ("held", "mapped", "ratio", "processor_ratio"))
    assert "wanted: ≥ 0.9" in run.stdout and "wanted: ≤ 4 GB" in run.stdout


def test_the_stored_scan_is_the_operator(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from scan_cpu import make_inputs
    from step_cpu import stored_scan

    inputs, dy, path = make_inputs((2, 5, 3, 4, 4))
    pair = [scan(*inputs, path) for scan in (ss2d_scan, stored_scan)]
    gradients = [torch.autograd.grad(y, inputs, dy) for y in pair]
    torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
    x, delta, *others = inputs
    factored = x, delta[..., :2], *others, path, torch.randn(*others[0].shape[:2], 2)
    torch.testing.assert_close(stored_scan(*factored), ss2d_scan(*factored), rtol=1e-5, atol=1e-5)


def test_functions_take_turns_with_the_first(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import turns

    now, calls = [0.0], []
    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])

    def lasting(name, seconds):
        def call():
            calls.append(name)
            now[0] += seconds * (1 + calls.count("first"))  # a machine that slows down

        return call

    functions = {"first": lasting("first", 1), "slow": lasting("slow", 8), "quick": lasting("quick", 2)}
    taken = turns.take_turns(functions, 40)
    assert calls[:9] == ["first", "slow", "quick"] * 3
    assert {name: len(seconds) for name, seconds in taken.items()} == {"first": 5, "slow": 2, "quick": 5}
    assert turns.typical_ratio(taken["quick"], taken["first"]) == 2
    assert turns.typical_ratio(taken["slow"], taken["first"]) == 8
    assert turns.typical_ratio(taken["slow"], taken["quick"]) == 4
    assert [len(seconds) for seconds in turns.take_turns({"first": functions["first"]}, 1).values()] == [1]


def test_the_report_benchmark_in_small_against_another_checkout(tmp_path):
    other, out = tmp_path / "other", tmp_path / "results" / "report.json"
    shutil.copytree(ROOT / "analysis", other / "analysis", ignore=shutil.ignore_patterns("__pycache__"))
    # The other checkout draws otherwise, and says so in one file.
    style = other / "analysis" / "rendering" / "css.py"
    style.write_text(style.read_text().replace("tbody tr:hover", "tbody tr:focus"))
    size = ["--variants", "2", "--seeds", "1", "--images", "30", "--turns", "1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "report.py"), *size, "--against", str(other)]
    run = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    report = json.loads(out.read_text())
    assert report["cells"] == 16 and [row["what"] for row in report["rows"]] == ["import alone", "report", "against"]
    against = report["against"]
    assert against["differing_files"] == ["report.html"] and "files that differ: report.html" in run.stdout
    assert {what: len(runs) for what, runs in against["runs"].items()} == {"against": 1, "report": 1}
    for name in ("seconds", "cpu_seconds", "peak_bytes"):
        ours, theirs = (against["runs"][what][0][name] for what in ("report", "against"))
        assert ours > 0 and against["ratios"][name] == ours / theirs
        assert f"{name} {ours / theirs:.3f}" in run.stdout


def test_the_report_benchmark_refuses_what_is_no_checkout(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "report.py"), "--against", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 2 and f"--against must be a checkout of this project, got {tmp_path}" in run.stderr


@pytest.mark.slow
def test_the_step_benchmark_in_small_against_another_checkout(tmp_path):
    out = tmp_path / "step.json"
    size = ["--turns", "2", "--steps", "1", "--networks", "nano", "--threads", "1", "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks" / "step_cpu.py"), "--against", str(ROOT), *size]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    report = json.loads(out.read_text())
    assert report["against"] == report["commit"]
    (row,) = report["rows"]
    # The same code from the same start: both have trained as far.
    assert row["network"] == "nano 28×28" and row["losses"][0] == row["losses"][1]
    for name in ("step_seconds", "step_cpu_seconds", "backward_seconds", "backward_cpu_seconds"):
        assert row[name]["ours"] > 0 and row[name]["ratio"] > 0 and f"{name} " in run.stdout
    command[-len(size) - 1] = str(tmp_path)
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1 and f"--against must be a checkout of this project, got {tmp_path}" in run.stderr


def test_every_choice_has_a_row_in_the_benchmark_of_axes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import axes

    from medmamba_variants.config import VariantConfig
    from medmamba_variants.design.joints import FUSIONS, HALVINGS
    from medmamba_variants.design.mixers import MIXERS
    from medmamba_variants.scan.directions import DIRECTION_SETS, ORDERS

    rows = dict(axes.choices())
    expected = {f"mixer={word}" for word in MIXERS} | {f"scan_order={order}" for order in ORDERS}
    expected |= {f"fusion={word}" for word in FUSIONS if word != axes.BASE.fusion}
    expected |= {f"downsampling={word}" for word in HALVINGS if word != axes.BASE.downsampling}
    expected |= {f"scan_directions={name}" for name in DIRECTION_SETS if name != axes.BASE.scan_directions}
    assert expected <= set(rows)
    for difference in rows.values():
        VariantConfig.from_dict(difference, base=axes.BASE)
    dear = {"name": "mixer=identity", "time_ratio": 1.0, "time_per_mac_ratio": 2.1}
    assert axes.verdict(dear) == axes.REASONS["mixer=identity"]
    assert axes.verdict(dear | {"name": "mixer=ss2d"}) == "NO REASON GIVEN"
    assert axes.verdict(dear | {"time_per_mac_ratio": 2.0}) == ""
    assert axes.reason_of("heads=4") == axes.REASONS["heads="]
    order = dear | {"name": "scan_order=spiral", "time_ratio": 1.06}
    assert axes.verdict(order) == "more than 1.05 × rows" and axes.verdict(order | {"time_ratio": 1.05}) == ""


def test_the_benchmark_of_axes_in_small(tmp_path):
    out = tmp_path / "axes.json"
    size = ["--only", "mixer=gated", "--seconds", "0.01", "--batch", "2", "--threads", "1", "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks" / "axes.py"), *size]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    rows = json.loads(out.read_text())["rows"]
    assert rows and all("mixer=gated" in row["name"] and row["name"] in run.stdout for row in rows), run.stderr
    for row in rows:
        assert row["time_per_mac_ratio"] == row["time_ratio"] / row["macs_ratio"] > 0
    # A row so dear without a reason would be an error, and nothing else is.
    assert run.returncode == int(any(row["verdict"] == "NO REASON GIVEN" for row in rows)), run.stderr


def test_the_benchmark_of_draws_in_small(tmp_path):
    out = tmp_path / "draws.json"
    size = ["--draws", "40", "--every", "10", "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks" / "draws.py"), *size]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    row = json.loads(out.read_text())
    assert row["draws"] == 40 and row["built"] == 4 and row["seconds"] > 0
    assert 0 < row["median_build_milliseconds"] <= row["slowest_build_milliseconds"]
    assert "40 variants with their MACs" in run.stdout


def test_the_forms_of_sequence_mixers_are_one_operator(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sequence_mixers

    for operator, forms in sequence_mixers.PEERS.items():
        for form in forms:
            assert sequence_mixers.largest_error(operator, form, (2, 8, 9, 10)) < 1e-4, (operator, form)
