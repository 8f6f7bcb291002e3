"""The 2-D selective scan: one operator, several backends."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medmamba_variants.scan.backends import use_backend
    from medmamba_variants.scan.op import selective_scan, ss2d_scan

__all__ = ["selective_scan", "ss2d_scan", "use_backend"]


# Looked up late: `scan.paths` names the directions for code that must not import torch.
def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module("medmamba_variants.scan." + ("backends" if name == "use_backend" else "op"))
    value = getattr(module, name)
    globals()[name] = value
    return value
