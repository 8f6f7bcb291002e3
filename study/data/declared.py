"""Kinds of what a study may declare about the reading of its images, without anything that reads them."""

from medmamba_variants.design.kinds import Mapped, Number, Setting, whole

SHARE = Number(0, 1, open=True)
SPLIT = Mapped(
    {
        "val": Setting(SHARE, "share of the images for validation, where they come without"),
        "test": Setting(SHARE, "share of the images for test, where they come without"),
        "seed": Setting(whole(0, 2**32 - 1), "another seed, another split", default=0),
    }
)
