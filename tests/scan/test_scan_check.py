"""`python -m medmamba_variants.scan`: what it says of a machine, and that it sees a wrong backend."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from medmamba_variants.scan import __main__ as program
from medmamba_variants.scan import backends, portable


@pytest.fixture
def output(monkeypatch, capsys):
    """Runs the program here; gives its exit code and its lines."""
    monkeypatch.setattr(sys, "argv", ["scan"])
    monkeypatch.setattr(backends, "_chosen", {})
    threads = torch.get_num_threads()
    yield lambda: (program.main(), capsys.readouterr().out.splitlines())
    torch.set_num_threads(threads)


def row(lines, *words):
    """The one line that starts with some words."""
    (found,) = (line for line in lines if line.split()[: len(words)] == list(words))
    return found


def test_as_a_command():
    done = subprocess.run([sys.executable, "-m", "medmamba_variants.scan"], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert lines[0].startswith("Backends on cpu (")
    assert lines[-1] == "All checks are green"
    for dtype in ("float32", "float64", "bfloat16"):
        assert row(lines, "cpu", "portable", dtype).endswith("  ok")
    assert max(map(len, lines)) <= 120


def test_says_what_is_used_and_what_is_absent(monkeypatch, output):
    monkeypatch.setattr(backends, "_loaded", {})
    monkeypatch.setitem(backends.BACKENDS, "cpu", "medmamba_variants.scan.absent")
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    monkeypatch.delitem(sys.modules, "medmamba_variants.scan.mamba_ssm", raising=False)
    code, lines = output()
    assert code == 0
    assert "absent" in row(lines, "cpu", "absent")
    assert row(lines, "portable", "used").endswith("torch operations: cpu cannot scan float32 or float64")
    assert row(lines, "reference", "works").endswith("only when asked for by name")
    after = lines[lines.index(row(lines, "mamba_ssm", "absent")) + 1]
    assert after.strip().startswith("MAMBA_KEEP_CUDA_BUILD=TRUE pip install") and after.endswith("'mamba-ssm>=2.2.4'")
    assert [line.split()[1] for line in lines if line.endswith("  ok")] == ["portable"] * 3


def lost_gradient(*arguments):
    *others, dbias = portable.backward(*arguments)
    return (*others, dbias * 1.001)


def not_a_number(*arguments):
    y, checkpoints = portable.forward(*arguments)
    return y * float("nan"), checkpoints


def no_memory(*arguments):
    raise MemoryError("no room\nfor the scan")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"backward": lost_gradient}, "1.0e-03 ddelta_bias"),
        ({"forward": not_a_number}, "inf "),
        ({"forward": no_memory}, "MemoryError: no room"),
    ],
)
def test_a_wrong_backend_is_red(monkeypatch, output, change, expected):
    module = SimpleNamespace(**vars(portable) | change)
    monkeypatch.setitem(backends._loaded, "portable", module)
    code, lines = output()
    assert code == 1
    found = row(lines, "cpu", "portable", "float32")
    assert found.endswith("  RED") and expected in found
    assert lines[-1].startswith("Not to be trusted: portable in float32 on cpu")
    # A thousandth is within what bfloat16 rounds.
    assert row(lines, "cpu", "portable", "bfloat16").endswith("ok" if "backward" in change else "RED")


def test_a_wrong_gradient_of_the_product_is_red(monkeypatch, output):
    module = backends.load_backend("cpu")
    if module.UNAVAILABLE is not None:
        pytest.skip(module.UNAVAILABLE)

    def backward(*arguments, delta_weight=None):
        *others, last = module.backward(*arguments, delta_weight=delta_weight)
        return (*others, last if delta_weight is None else last * 1.001)

    monkeypatch.setitem(backends._loaded, "cpu", SimpleNamespace(**vars(module) | {"backward": backward}))
    code, lines = output()
    assert code == 1 and "1.0e-03 ddelta_weight" in row(lines, "cpu", "cpu", "float32")


def test_a_gpu_has_its_own_lines(monkeypatch):
    monkeypatch.setattr(program, "backend_name", lambda device, dtype: "triton" if dtype.itemsize == 4 else "portable")
    reasons = {"cpu": "does not scan float32 on cuda", "mamba_ssm": "No module (pip install it)"}
    monkeypatch.setattr(program, "why_not", lambda backend, device, dtype: reasons.get(backend, ""))
    title, *lines = program.describe("cuda", "GPU X")
    assert title == "Backends on cuda (GPU X)"
    assert [line.split()[:2] for line in lines] == [
        ["triton", "used"],
        ["portable", "used"],
        ["reference", "works"],
        ["cpu", "absent"],
        ["mamba_ssm", "absent"],
        ["pip", "install"],
    ]
    assert lines[0].endswith("the first choice here") and lines[1].endswith("triton cannot scan float64")
