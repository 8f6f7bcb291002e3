"""Explanation of a cell, `python -m study.explain`: maps, features, receptive fields and curves of its network."""

from typing import TYPE_CHECKING

import lazy_loader

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"command_line": ["main"]})

if TYPE_CHECKING:
    from study.explain.command_line import main as main
