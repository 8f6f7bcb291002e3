"""Kinds of what a study may declare about the reading of its images, without anything that reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.kinds import (
    Choice,
    Keys,
    Kind,
    Listed,
    Mapped,
    Number,
    OrEach,
    Setting,
    SettingError,
    Text,
    whole,
)

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

AXIS = Choice(("sagittal", "coronal", "axial"))
WINDOW_WORDS = Choice(("full", "tag"))
BOUND = Number(-1e12, 1e12)
LIMITS = Mapped({"low": Setting(BOUND, "becomes black", required=True), "high": Setting(BOUND, "white", required=True)})
PERCENTILES = Mapped(
    {"percentiles": Setting(Listed(Number(0, 100)), "the shares of a file's values that become black and white")}
)


@dataclass(frozen=True)
class Window(Kind):
    """What becomes black and what white where images have more than eight bits a channel.

    full: the ends of what the file's type can hold; tag: the window in a DICOM file's tags; {low, high}: two values,
    for DICOM and NIfTI after their rescaling; {percentiles: [1, 99]}: of the values of each file.
    """

    def parse(self, value: Any, path: Keys = ()) -> Any:
        if not isinstance(value, Mapping):
            return WINDOW_WORDS.parse(value, path)
        if "percentiles" in value:
            low, high = _pair(PERCENTILES.parse(value, path)["percentiles"], (*path, "percentiles"))
            given: dict[str, Any] = {"percentiles": [low, high]}
        else:
            given = LIMITS.parse(value, path)
            low, high = float(given["low"]), float(given["high"])
        if low >= high:
            raise SettingError(path, f"must have its high end above the low one, got {low:g} and {high:g}")
        return given

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [WINDOW_WORDS.schema(), LIMITS.schema(), PERCENTILES.schema()]}


WINDOW = Window()


def window_words(window: Any) -> str:
    """A canonical window in words, as a note tells it."""
    if isinstance(window, str):
        return {"full": "all that a file's type can hold", "tag": "the window of each file's tags"}[window]
    if "percentiles" in window:
        return "percentiles {:g} and {:g} of each file".format(*window["percentiles"])
    return f"{window['low']:g} to {window['high']:g}"


def _pair(values: tuple[float, ...], path: Keys) -> tuple[float, float]:
    if len(values) != 2:
        raise SettingError(path, f"must be a list of two numbers, got {len(values)}")
    return values[0], values[1]
