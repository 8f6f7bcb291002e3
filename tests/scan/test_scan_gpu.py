"""benchmarks/scan_gpu.py without a GPU: its shapes, peers, checks, floor and report, with the clock replaced."""

import json
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medmamba_variants.config import PRESETS
from medmamba_variants.model import build_model
from medmamba_variants.parts.mixers import ss2d
from medmamba_variants.scan import backends, selective_scan

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The benchmark as a module that runs on the CPU: portable in the place of the kernels, no mamba-ssm."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import scan_gpu

    monkeypatch.setattr(scan_gpu, "DEVICE", "cpu")
    monkeypatch.setattr(scan_gpu, "OURS", "reference")
    monkeypatch.setattr(scan_gpu, "RESULTS_FOLDER", tmp_path / "results")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: PROPERTIES)
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    monkeypatch.setattr(backends, "_loaded", {})
    monkeypatch.delitem(sys.modules, "medmamba_variants.scan.mamba_ssm", raising=False)
    return scan_gpu


# An H200.
PROPERTIES = SimpleNamespace(
    name="H200",
    multi_processor_count=132,
    clock_rate=1_980_000,
    memory_clock_rate=3_201_000,
    memory_bus_width=6144,
    L2_cache_size=1024,
)


def scan_of_a_peer(u, delta, A, B, C, D, delta_bias, delta_softplus):
    """In the place of mamba-ssm's scan."""
    assert delta_softplus and u.is_contiguous() and delta.is_contiguous() and B.is_contiguous() and C.is_contiguous()
    return selective_scan(u, delta, A, B, C, D, delta_bias)


@pytest.fixture
def with_mamba_ssm(bench, monkeypatch):
    """The benchmark with all its peers; Triton's cross-scan needs a GPU or the interpreter and is torch's here."""
    import cross_scan

    interface = SimpleNamespace(selective_scan_fn=scan_of_a_peer)
    monkeypatch.setitem(backends._loaded, "mamba_ssm", SimpleNamespace(selective_scan_interface=interface))
    for name in ("scan", "merge"):
        monkeypatch.setattr(cross_scan, f"{name}_by_triton", getattr(cross_scan, f"{name}_by_torch"))
    return bench


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "scan_gpu.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "scan_gpu needs a CUDA GPU, and torch finds none: not measured\n"


@pytest.mark.parametrize("model", ["medmamba_t", "medmamba_b"])
def test_shapes_are_those_of_the_network(bench, monkeypatch, model):
    seen = []
    monkeypatch.setattr(ss2d, "ss2d_scan", lambda x, delta, A, *_, **__: seen.append((*x.shape, A.shape[2])) or x)
    with torch.no_grad():
        build_model(PRESETS[model], num_classes=2, in_channels=3).eval()(torch.zeros(1, 3, 64, 64))
    shapes = list(bench.stage_shapes(PRESETS[model], 64, 1))
    assert list(dict.fromkeys(seen)) == [(b, h * w, c, n) for b, c, h, w, n in shapes]
    assert next(bench.stage_shapes(PRESETS[model], 224, 128))[2:] == (56, 56, 16)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_peers_compute_the_scan(with_mamba_ssm, dtype):
    bench = with_mamba_ssm
    shape = (3, 4, 5, 3, 2)
    inputs, dy, path = bench.inputs_on_device(shape, bench.DTYPES[dtype])
    low, full = bench.DTYPES[dtype], torch.float32
    assert [tensor.dtype for tensor in inputs] == [low, low, full, low, low, full, full]
    peers, missing = bench.peers(path, 5, 3)
    assert [peer.name for peer in peers] == [
        "reference",
        "portable",
        "mamba-ssm, torch cross-scan",
        "mamba-ssm, Triton cross-scan",
    ]
    assert missing == []
    for errors in bench.measure_errors(peers, inputs, dy, path):
        assert list(errors) == ["y", "dx", "ddelta", "dA", "dB", "dC", "dD", "ddelta_bias"]
        assert 0 < max(errors.values()) < bench.ALLOWED[low]


@pytest.mark.parametrize("name", ["y", "dx", "ddelta", "dA", "dB", "dC", "dD", "ddelta_bias"])
def test_every_wrong_result_is_seen(bench, name):
    inputs, dy, path = bench.inputs_on_device((3, 2, 2, 3, 2), torch.float32)
    (peer, *_), _ = bench.peers(path, 2, 3)

    def wrong(*tensors):
        if name == "y":
            return peer.scan(*tensors) * 1.01
        i = bench.RESULTS.index(name) - 1
        # The value stays, and the gradient is a hundredth larger.
        more = 0.01 * (tensors[i] - tensors[i].detach())
        return peer.scan(*(tensor + more if j == i else tensor for j, tensor in enumerate(tensors)))

    (errors,) = bench.measure_errors([bench.Peer("wrong", wrong, list)], inputs, dy, path)
    assert errors[name] == pytest.approx(0.01, rel=0.01)
    others = {other for other in errors if other != name} - (set(errors) if name == "y" else set())
    assert all(errors[other] < 1e-5 for other in others)

    not_a_number = bench.Peer("NaN", lambda *tensors: peer.scan(*tensors) * float("nan"), list)
    (errors,) = bench.measure_errors([not_a_number], inputs, dy, path)
    assert set(errors.values()) == {float("inf")}


def test_floor_is_exponentials_or_traffic(bench):
    device = bench.Device.of(PROPERTIES)
    assert device.exponentials == pytest.approx(4.18e12, rel=1e-3)
    assert device.bandwidth == pytest.approx(4.917e12, rel=1e-3)
    # Exponentials: 3 · 17 · 128 · 4 · 3136 · 96.
    exponentials = 3 * 17 * 128 * 4 * 3136 * 96 / device.exponentials
    assert device.floor((128, 96, 56, 56, 16), 4) == pytest.approx(1e3 * exponentials)
    # With a single state traffic counts: x, y, dx, dy and x again; delta, B and C twice, and their gradients.
    scanned = 128 * 3136 * 4
    elements = 5 * 128 * 3136 * 96 + 3 * scanned * (96 + 2)
    assert device.floor((128, 96, 56, 56, 1), 4) == pytest.approx(1e3 * 4 * elements / device.bandwidth)


@pytest.fixture
def clock(monkeypatch, with_mamba_ssm):
    """Runs take 1 + 2 ms, those of mamba-ssm 3 + 6 ms, every second run a thousandth less."""
    calls = count()

    def time_once(scan, leaves, dy, flush):
        torch.autograd.grad(scan(*leaves), leaves, dy)
        factor = (1 if scan.func is with_mamba_ssm.scan_through else 3) * (1 if next(calls) % 2 else 0.999)
        return 1.0 * factor, 2.0 * factor

    def peak_bytes(run):
        run()
        return 1000 if run.args[0].func is with_mamba_ssm.scan_through else 1500

    monkeypatch.setattr(with_mamba_ssm, "time_once", time_once)
    monkeypatch.setattr(with_mamba_ssm, "peak_bytes", peak_bytes)
    monkeypatch.setattr(sys, "argv", ["scan_gpu.py", "--shapes", "2x3x2x3x2", "--dtypes", "float32", "--seconds", "0"])
    return with_mamba_ssm


def test_the_report(clock, capsys, tmp_path):
    assert clock.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["2x3x2x3x2", "float32", "reference"],
        ["2x3x2x3x2", "float32", "portable"],
    ]
    # Columns are aligned.
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[5] == "Beside the best mamba-ssm pipeline: twice as fast at 1 and half of the memory at 0 of 1"
    written = json.loads((tmp_path / "results" / "scan_gpu.json").read_text())
    assert written["machine"]["name"] == "H200" and "torch" in written["machine"]["versions"] and written["commit"]
    ours, portable, by_torch, _ = written["rows"]
    assert ours["times_ours"] == ours["memory_times_ours"] == 1
    assert portable["times_ours"] == pytest.approx(1, rel=0.01)
    assert by_torch["times_ours"] == pytest.approx(3, rel=0.01) and by_torch["memory_times_ours"] == 1.5
    assert ours["both_ms"] == pytest.approx(ours["forward_ms"] + ours["backward_ms"])
    assert ours["floor_fraction"] == pytest.approx(ours["floor_ms"] / ours["both_ms"])
    assert all(0 < row["error"] < 1e-5 for row in written["rows"])


def test_a_missing_peer_is_named(clock, monkeypatch, capsys):
    monkeypatch.delitem(backends._loaded, "mamba_ssm")
    assert clock.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("mamba-ssm between cross-scan and cross-merge is left out: ")
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE pip install" in lines[0]
    assert lines[-3] == "Nothing to say about mamba-ssm: it was not measured"


def test_nothing_is_timed_where_something_is_wrong(clock, monkeypatch, capsys, tmp_path):
    scan_laid_out = clock.scan_laid_out
    monkeypatch.setattr(clock, "scan_laid_out", lambda *arguments: scan_laid_out(*arguments) * 1.001)
    monkeypatch.setattr(clock, "time_once", lambda *arguments: pytest.fail("timed"))
    assert clock.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines[:2]:
        assert line.startswith("RED  2x3x2x3x2 float32 mamba-ssm, ") and line.endswith("1.0e-03")
    assert not (tmp_path / "results").exists()


def test_a_peer_without_enough_memory_is_left_out(clock, capsys):
    inputs, dy, path = clock.inputs_on_device((2, 3, 2, 3, 2), torch.float32)
    found, _ = clock.peers(path, 2, 3)

    def no_memory(*tensors):
        raise torch.OutOfMemoryError

    found[2] = clock.Peer(found[2].name, partial(no_memory), found[2].arrange)
    measured = clock.measure(found, inputs, dy, clock.Device.of(PROPERTIES), 0.0)
    assert list(measured) == [peer.name for peer in (*found[:2], found[3])]


def test_a_peer_without_enough_memory_for_its_check_is_named(clock, monkeypatch, capsys, tmp_path):
    def no_memory(*tensors):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(clock, "scan_laid_out", no_memory)
    assert clock.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("mamba-ssm, Triton cross-scan is left out at 2x3x2x3x2 in float32: there is not enough memory")
    written = json.loads((tmp_path / "results" / "scan_gpu.json").read_text())
    assert [row["peer"] for row in written["rows"]] == ["reference", "portable"]
    assert len(written["left_out"]) == 2


def test_without_our_kernels_there_is_nothing_to_compare(bench):
    rows = [{"peer": "portable", "both_ms": 2.0, "memory_bytes": 3}]
    bench.compare(rows)
    assert rows[0]["times_ours"] is None and rows[0]["memory_times_ours"] is None
    assert bench.summarise(rows) == "Nothing to say about mamba-ssm: it was not measured"
