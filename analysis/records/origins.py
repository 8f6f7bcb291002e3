"""Origins of data sets: the key of the collection that a file's images come from, which statistics count.

The catalogue beside the files (datasets.json) may name a key, and a study's own `sources` wins over it. Otherwise
MedMNIST's sets, by name, have those below: two of them, or one and a file that a catalogue gives the same key, are no
two sources. All others are their own.
"""

from __future__ import annotations

import re

# The collections behind MedMNIST v2 (Yang et al. 2023, table 2). The three views of the abdomen are slices of the same
# CT volumes (LiTS). PneumoniaMNIST and OCTMNIST come from one publication (Kermany et al. 2018) and are two sources all
# the same: chest X-rays of children in Guangzhou and retinal OCT of adults from five hospitals share no patient, device
# or image, and results on one say no more about the other than those of any two sets.
MEDMNIST = {
    "bloodmnist": "acevedo_blood",
    "breastmnist": "busi",
    "chestmnist": "nih_chestxray14",
    "dermamnist": "ham10000",
    "octmnist": "kermany_oct",
    "organamnist": "lits",
    "organcmnist": "lits",
    "organsmnist": "lits",
    "pathmnist": "nct_crc_he",
    "pneumoniamnist": "kermany_cxr",
    "retinamnist": "deepdrid",
    "tissuemnist": "bbbc051",
}
# Files of other sizes than 28 pixels.
SIZE = re.compile("_(64|128|224)$")


def source_key(name: str, named: str | None = None) -> str:
    """The source of a data set. named: the key that its catalogue gives, which wins; else MedMNIST's, else its name."""
    return named or MEDMNIST.get(SIZE.sub("", name.lower()), name)
