"""Data sets under one protocol: npz folders, MedMNIST, image folders and procedural phantoms."""

from study.data.protocol import Dataset, DatasetInfo, Split, fingerprint
from study.data.sources import Source, load_dataset, open_source, source_for

__all__ = ["Dataset", "DatasetInfo", "Source", "Split", "fingerprint", "load_dataset", "open_source", "source_for"]
