"""The mamba_ssm backend where mamba-ssm cannot be: its place is taken by the recurrence in its layout."""

import sys
from threading import get_ident
from types import ModuleType

import pytest
import torch
from test_scan import NAMES, loop, make, relative
from torch.nn.functional import softplus

from medmamba_variants.scan import backends, ss2d_scan, use_backend
from medmamba_variants.scan.paths import custom_path, scan_path, window_path


@pytest.fixture
def fresh(monkeypatch):
    """No backend is loaded or chosen yet, and mamba-ssm's not imported."""
    monkeypatch.setattr(backends, "_chosen", {})
    monkeypatch.setattr(backends, "_loaded", {})
    monkeypatch.delitem(sys.modules, "medmamba_variants.scan.mamba_ssm", raising=False)
    return monkeypatch


def selective_scan_fn(u, delta, A, B, C, D, delta_bias, delta_softplus):
    assert delta_softplus and u.is_contiguous() and delta.is_contiguous() and B.is_contiguous() and C.is_contiguous()
    groups = B.shape[1]
    delta = softplus(delta + delta_bias[:, None])
    B, C = (tensor.repeat_interleave(u.shape[1] // groups, dim=1) for tensor in (B, C))
    h, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * u[:, :, t, None]
        outputs.append((h * C[..., t]).sum(2) + D * u[:, :, t])
    return torch.stack(outputs, 2)


class SelectiveScanFn:
    """As mamba-ssm's, whose two halves run without autograd."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
        assert z is None and not return_last_state
        ctx.save_for_backward(u, delta, A, B, C, D, delta_bias)
        return selective_scan_fn(u, delta, A, B, C, D, delta_bias, delta_softplus)

    @staticmethod
    def backward(ctx, dout):
        leaves = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            y = selective_scan_fn(*leaves, delta_softplus=True)
        *gradients, dbias = torch.autograd.grad(y, leaves, dout)
        return *gradients, None, dbias, None, None


@pytest.fixture
def package(fresh):
    """A module in the place of mamba-ssm's."""
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        fresh.setitem(sys.modules, name, package := ModuleType(name))
    package.selective_scan_fn, package.selective_scan_cuda = selective_scan_fn, object()
    package.SelectiveScanFn = SelectiveScanFn
    return package


@pytest.fixture
def mamba_ssm(fresh, package):
    """The mamba_ssm backend on the CPU, with another's recurrence."""
    module = backends.load_backend("mamba_ssm")
    fresh.setattr(module, "supports", lambda x: True)
    yield module
    del sys.modules["medmamba_variants.scan.mamba_ssm"]


@pytest.mark.parametrize(
    "path",
    [
        scan_path("eight", 3, 4),
        custom_path([[0, 5, 2], [-1, 3, -1, -1, 1, 0, 2, 5, -1], [6, 5, 0, 2], [-1, -1, 1]], 8),
    ],
    ids=["eight", "pauses"],
)
def test_mamba_ssm_equals_the_loop(mamba_ssm, path):
    inputs = make(path)
    with use_backend("mamba_ssm"):
        y = ss2d_scan(*inputs, path)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        gradients = torch.autograd.grad(y, inputs, dy)
    expected = loop(inputs, path)
    assert relative(y, expected) < 1e-12
    for name, gradient, truth in zip(NAMES, gradients, torch.autograd.grad(expected, inputs, dy)):
        assert relative(gradient, truth) < 1e-12, name


def test_mamba_ssm_waits_for_no_other_thread(mamba_ssm, monkeypatch):
    """Autograd's worker for a device, which waited for a thread that had its own gradient to wait for, hung a GPU."""
    threads, recurrence = [], selective_scan_fn

    def watched(*arguments, **options):
        threads.append(get_ident())
        return recurrence(*arguments, **options)

    # Under both of its names: as mamba-ssm's function, and as what the halves of its autograd function call.
    monkeypatch.setitem(globals(), "selective_scan_fn", watched)
    monkeypatch.setattr(mamba_ssm.selective_scan_interface, "selective_scan_fn", watched)
    path = scan_path("cross4", 2, 3)
    inputs = make(path)
    with use_backend("mamba_ssm"):
        torch.autograd.grad(ss2d_scan(*inputs, path).sum(), inputs)
    assert len(threads) > 1 and set(threads) == {get_ident()}


def test_mamba_ssm_refuses_marks(mamba_ssm):
    path = window_path(("rows",), 2, 3, (1, 3))
    with use_backend("mamba_ssm"), pytest.raises(ValueError, match="mamba_ssm needs a path without marks"):
        ss2d_scan(*make(path), path)


def test_missing_mamba_ssm_says_how_to_install_it(fresh):
    fresh.setitem(sys.modules, "mamba_ssm", None)
    message = r"'mamba_ssm' .*\(MAMBA_KEEP_CUDA_BUILD=TRUE pip install .*'mamba-ssm>=2\.2\.4'\)"
    with pytest.raises(ImportError, match=message) as caught, use_backend("mamba_ssm"):
        raise AssertionError("not reached")
    assert "\n" not in str(caught.value)


def test_mamba_ssm_without_its_kernels_is_missing(package):
    # What its setup makes by default: everything but the scan, which then fails at its first call.
    package.selective_scan_cuda = None
    with pytest.raises(ImportError, match=r"built without .*\(MAMBA_KEEP_CUDA_BUILD=TRUE"), use_backend("mamba_ssm"):
        raise AssertionError("not reached")


def test_mamba_ssm_is_never_chosen_by_itself():
    assert not any("mamba_ssm" in names for names in backends.PREFERRED.values())
