"""Data sets behind one protocol: npz folders, MedMNIST, image folders and procedural phantoms."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
