"""Readers of a store: its ledger as a table with one row per cell, its studies' manifests, per-image predictions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
