"""Dials that every phantom has. No array library is imported, so that reading a study file stays instant."""

from dataclasses import dataclass
from typing import Any

from medmamba_variants.design.kinds import Keys, Kind, Number, Setting, SettingError, whole


@dataclass(frozen=True)
class Pixels(Kind):
    """A size in pixels, as text: the side, as in 28, or height and width, as in 24x32."""

    def parse(self, value: Any, path: Keys = ()) -> str:
        sides = str(value).split("x")
        if len(sides) > 2 or not all(side.isdecimal() and 8 <= int(side) <= 1024 for side in sides):
            raise SettingError(
                path, f"must be pixels from 8 to 1024, or height x width as in 24x32, got {str(value)!r}"
            )
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\d+(x\d+)?$"}

    def words(self) -> str:
        return "8 to 1024, or height x width"


COMMON_DIALS: dict[str, Setting] = {
    "size": Setting(Pixels(), "pixels a side, or height and width as in 24x32", default="28"),
    "n_train": Setting(whole(2, 10**6), "training images", default=200),
    "n_val": Setting(whole(2, 10**6), "validation images", default=80),
    "n_test": Setting(whole(2, 10**6), "test images", default=120),
    "imbalance": Setting(
        Number(1, 10**4), "images of the first class for each of the last, the others between", default=1.0
    ),
    "noise": Setting(Number(0, 20), "noise relative to the set's own", default=1.0),
    "seed": Setting(whole(0, 2**32 - 1), "another draw of the same kind of images", default=0),
}
