"""Context in which the names of mamba-ssm, causal-conv1d and VMamba's kernels lead to this suite's scan."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from medmamba_variants.drop_in import crossing, interface, kernels
from medmamba_variants.drop_in.mamba import Mamba

_FUNCTIONS: dict[str, Any] = {
    "selective_scan_fn": interface.selective_scan_fn,
    # There a slow formulation for tests; here there is but one function.
    "selective_scan_ref": interface.selective_scan_fn,
    "mamba_inner_fn": interface.mamba_inner_fn,
    "mamba_inner_ref": interface.mamba_inner_fn,
    "mamba_inner_fn_no_out_proj": interface.mamba_inner_fn_no_out_proj,
}
_CORE = {"fwd": kernels.core_forward, "bwd": kernels.core_backward}

# Module → what it has.
MODULES: dict[str, dict[str, Any]] = {
    "mamba_ssm": {"Mamba": Mamba, **{n: _FUNCTIONS[n] for n in ("selective_scan_fn", "mamba_inner_fn")}},
    "mamba_ssm.modules": {},
    "mamba_ssm.modules.mamba_simple": {"Mamba": Mamba},
    "mamba_ssm.ops": {},
    "mamba_ssm.ops.selective_scan_interface": _FUNCTIONS,
    "selective_scan": {name: _FUNCTIONS[name] for name in ("selective_scan_fn", "selective_scan_ref")},
    "selective_scan_cuda": {"fwd": kernels.forward, "bwd": kernels.backward},
    "selective_scan_cuda_core": _CORE,
    "selective_scan_cuda_nrow": _CORE,
    "selective_scan_cuda_oflex": {"fwd": kernels.oflex_forward, "bwd": kernels.core_backward},
    "causal_conv1d": {"causal_conv1d_fn": interface.causal_conv1d_fn},
    "csm_triton": {"cross_scan_fn": crossing.cross_scan_fn, "cross_merge_fn": crossing.cross_merge_fn},
}


@contextmanager
def as_mamba_ssm() -> Iterator[dict[str, ModuleType]]:
    """Context in which `import mamba_ssm` and its kin, `MODULES`, give functions of this suite; yields the modules.

    What is imported within keeps them afterwards. Packages of these names that are installed, or were imported before,
    are hidden meanwhile. On a CPU and on GPUs; what these modules have beyond `MODULES` is missing, so that an import
    of it fails where it stands.
    """
    made = {name: _module(name, content) for name, content in MODULES.items()}
    for name, module in made.items():
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(made[parent], last, module)
    names = {name for name in sys.modules if name.partition(".")[0] in {each.partition(".")[0] for each in MODULES}}
    hidden = {name: sys.modules.pop(name) for name in names}
    sys.modules.update(made)
    try:
        yield made
    finally:
        for name in made:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


def _module(name: str, content: dict[str, Any]) -> ModuleType:
    module = ModuleType(name, f"Stand-in for {name}, made by medmamba_variants.drop_in.")
    # Many ask importlib.util.find_spec whether a package is there.
    module.__spec__ = ModuleSpec(name, None, is_package=any(other.startswith(f"{name}.") for other in MODULES))
    if module.__spec__.submodule_search_locations is not None:
        module.__path__ = []
    vars(module).update(content)
    return module
