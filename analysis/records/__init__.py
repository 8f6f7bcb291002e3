"""A store read: the ledger as a table, one row a cell, with the manifests of its studies and per-image predictions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
