"""The 2-D selective scan: one operator, several backends."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medmamba_variants.scan.backends import use_backend
    from medmamba_variants.scan.op import ss2d_scan
    from medmamba_variants.scan.selective import selective_scan

__all__ = ["selective_scan", "ss2d_scan", "use_backend"]
_HOMES = {"selective_scan": "selective", "ss2d_scan": "op", "use_backend": "backends"}


# Looked up late: `scan.paths` names the directions for code that must not import torch.
def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"medmamba_variants.scan.{_HOMES[name]}"), name)
    return value
