"""Kinds of what a study may declare about the reading of its images, without anything that reads them."""

from medmamba_variants.design.kinds import Mapped, Number, OrEach, Setting, Text, whole

SHARE = Number(0, 1, open=True)
SPLIT = Mapped(
    {
        "val": Setting(SHARE, "share of the images for validation, where they come without"),
        "test": Setting(SHARE, "share of the images for test, where they come without"),
        "seed": Setting(whole(0, 2**32 - 1), "another seed, another split", default=0),
    }
)

NAME = Text()
COLUMNS = Mapped(
    {
        "image": Setting(NAME, "column of the image's file, its ending and folders or not"),
        "label": Setting(
            OrEach(NAME), "column of the class; a list: a column for each class, with 1 in that of the image's"
        ),
        "split": Setting(NAME, "column of train, val or test"),
        "group": Setting(NAME, "column of what images of one patient or lesion share"),
        "source": Setting(NAME, "column of where an image comes from"),
    }
)
