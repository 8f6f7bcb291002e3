"""Classifiers of timm by name, as networks of a study: `{timm: resnet18, stem: small}`.

Their settings are checked against the signature of timm's own class, and the network is built once, without memory,
when a study is read. The suite sets the number of classes, the input channels and, where the class takes it, the image
size.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from typing import Any, cast

import torch
from torch import nn

from medmamba_variants.design.kinds import Keys, SettingError, to_json
from medmamba_variants.hints import did_you_mean, one_line, one_of, shown
from medmamba_variants.parts.init import first_values
from medmamba_variants.peers.identity import Settings, canonical_settings, hashed, in_words, plain

STEMS = ("timm", "small")
# Up to this side in pixels the small stem stands in for a stem that would halve the map twice.
LARGEST_FOR_SMALL_STEM = 64
# What a cell fixes, and what makes something other than a classifier.
SET_BY_THE_SUITE = (
    *("num_classes", "in_chans", "img_size", "device", "dtype"),
    *("pretrained", "features_only", "global_pool", "checkpoint_path", "scriptable", "exportable"),
)
SIZES_TRIED = (16, 28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 256, 288, 384)


@dataclass(frozen=True)
class TimmNetwork:
    """A classifier of timm: its name, its own settings, and the stem.

    stem "small": a 3 × 3 convolution with stride 1, and no pooling, in place of a ResNet's stem, as for CIFAR (He et
    al. 2016, section 4.2); for images of at most 64 pixels a side. major: timm's major version, part of the id, since
    the name promises no more than that.
    """

    name: str
    settings: Settings
    stem: str
    major: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Keys = ()) -> TimmNetwork:
        """The network that `{timm: NAME, stem: …, SETTING: …}` names; `timm_major` only in records.

        Raises SettingError below `path` for an unknown name or setting, and for what timm refuses.
        """
        import timm

        name, rest = values["timm"], {key: value for key, value in values.items() if key != "timm"}
        if not isinstance(name, str) or not timm.is_model(name):
            close = did_you_mean(name, timm.list_models(), count=3, otherwise="timm.list_models() lists them")
            raise SettingError((*path, "timm"), f"must be the name of a classifier of timm, got {shown(name)}; {close}")
        stem = rest.pop("stem", STEMS[0])
        if stem not in STEMS:
            raise SettingError((*path, "stem"), one_of(stem, STEMS))
        major = rest.pop("timm_major", None) or timm_major()
        known = _parameters(name)
        for key in rest:
            if key in SET_BY_THE_SUITE:
                raise SettingError((*path, key), f"must be left out, since the suite sets it, got {shown(rest[key])}")
            if key not in known:
                raise SettingError((*path, key), f"must be a setting of timm's {name}: {one_of(key, sorted(known))}")
        made = cls(name, canonical_settings(rest, path), stem, int(major))
        problem = _refusal(made)
        if problem is not None:
            raise SettingError(path, f"must be settings that timm's {name} takes, got {problem}")
        return made

    @cached_property
    def variant_id(self) -> str:
        """Twelve hexadecimal digits that name the network: a hash of its name, settings and timm's major version."""
        return hashed(self.diff())

    def diff(self, other: object = None) -> dict[str, Any]:
        """Name, settings and timm's major version as plain JSON values, from which `from_dict` makes the network."""
        stem = {} if self.stem == STEMS[0] else {"stem": self.stem}
        return {"timm": self.name, **stem, **_json(self.settings), "timm_major": self.major}

    def to_dict(self) -> dict[str, Any]:
        """The values of `diff`."""
        return self.diff()

    def label(self, base: object = None) -> str:
        """A short text for a network without a name in the study, such as `timm=resnet18 stem=small`."""
        return in_words({key: value for key, value in self.diff().items() if key != "timm_major"})

    def changed(self, settings: Mapping[str, Any]) -> TimmNetwork:
        """The network with other values of some settings. Raises SettingError as `from_dict` does."""
        return TimmNetwork.from_dict({**self.diff(), **settings})

    def widths(self, names: Sequence[str]) -> tuple[str, int | tuple[int, ...]] | None:
        """The first of some names that is a setting of the class, with the value it has; None where there is none."""
        given, known = dict(self.settings), _parameters(self.name)
        for name in names:
            if name in given:
                return name, given[name]
            value = _own_widths(self.name, name) if name in known else None
            if value is not None:
                return name, value
        return None

    def build(self, *, num_classes: int, in_channels: int, image_size: tuple[int, int] | None) -> nn.Module:
        """The network, freshly initialised from torch's global generator on the default device.

        image_size: (height, width); None leaves a class that takes the size with its own. Raises ValueError, one line,
        where the network cannot take such images.
        """
        import timm

        options: dict[str, Any] = {name: plain(value) for name, value in self.settings}
        where = f"timm's {self.name}"
        if image_size is not None and "img_size" in _parameters(self.name):
            options["img_size"] = image_size
        if self.stem == "small":
            options |= self._small_stem(image_size)
        try:
            with first_values():
                model = timm.create_model(self.name, num_classes=num_classes, in_chans=in_channels, **options)
        except Exception as error:  # timm's classes raise anything from AssertionError to ZeroDivisionError.
            if image_size is None:
                raise
            raise ValueError(f"{where} must take images of {_by(image_size)}, got {one_line(error)}") from None
        if self.stem == "small":
            _put_small_stem(model, in_channels)
        if image_size is not None:
            _refuse_cut_patches(model, image_size, where)
        return model

    def needs(self, problem: Exception, *, image_size: tuple[int, int], in_channels: int) -> ValueError:
        """The error for images on which the network fails, with the smallest size that it takes."""
        for side in SIZES_TRIED:
            if side <= max(image_size):
                continue
            try:
                with torch.device("meta"):
                    model = self.build(num_classes=2, in_channels=in_channels, image_size=(side, side))
                    model.eval()(torch.zeros(1, in_channels, side, side))
            except Exception:
                continue
            least = f"images of {_by((side, side))} will do (recipe.image_size resizes them)"
            break
        else:
            least = f"no square size up to {SIZES_TRIED[-1]} will do"
        return ValueError(f"timm's {self.name} must take images of {_by(image_size)}, got {one_line(problem)}; {least}")

    def _small_stem(self, image_size: tuple[int, int] | None) -> dict[str, Any]:
        from timm.models.resnet import ResNet

        given = dict(self.settings)
        if not issubclass(_class_of(self.name), ResNet):
            raise ValueError(f"stem: small must go with a ResNet of timm, got {self.name}")
        for key in ("stem_type", "stem_width"):
            if key in given:
                raise ValueError(f"{key} must be left out with stem: small, got {given[key]}")
        if image_size is not None and max(image_size) > LARGEST_FOR_SMALL_STEM:
            raise ValueError(
                f"stem: small must go with images of at most {LARGEST_FOR_SMALL_STEM} pixels a side, "
                f"got {_by(image_size)}"
            )
        width = given.get("channels", (64,))[0]
        if width % 2:
            raise ValueError(f"channels must begin with an even number for stem: small, got {width}")
        # timm's deep stem ends with twice stem_width channels; its layers are replaced.
        return {"stem_type": "deep", "stem_width": width // 2}


def timm_major() -> int:
    """The major version of the installed timm."""
    return int(version("timm").split(".")[0])


@lru_cache(maxsize=256)
def _class_of(name: str) -> type[nn.Module]:
    import timm

    with torch.device("meta"), first_values():
        return type(timm.create_model(name))


@lru_cache(maxsize=256)
def _refusal(network: TimmNetwork) -> str | None:
    """Why timm does not build a network, None where it does: tried without memory, and once, for records repeat it."""
    try:
        with torch.device("meta"):
            network.build(num_classes=2, in_channels=3, image_size=None)
    except Exception as error:  # timm's classes raise anything from TypeError to ZeroDivisionError.
        return one_line(error)
    return None


@lru_cache(maxsize=256)
def _parameters(name: str) -> frozenset[str]:
    """Names of the settings of a classifier's class, those of the classes it hands unknown ones on to included."""
    found: set[str] = set()
    for owner in _class_of(name).__mro__:
        if owner is nn.Module:
            break
        parameters = inspect.signature(owner.__init__).parameters.values()  # type: ignore[misc]
        found |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return frozenset(found - {"self"})


@lru_cache(maxsize=256)
def _own_widths(name: str, setting: str) -> int | tuple[int, ...] | None:
    """The widths that a classifier has by itself under the name of a setting; None where they cannot be read off."""
    import timm

    with torch.device("meta"), first_values():
        model: Any = timm.create_model(name)
    value: Any = getattr(model, setting, None)
    if value is None and setting in ("dims", "channels"):
        # A ResNet's stem counts as a feature, and its last widths are those of the blocks' ends.
        expansion = _expansion(model)
        stages = [stage["num_chs"] // expansion for stage in model.feature_info if "stem" not in stage["module"]]
        value = stages[1:] if setting == "channels" else stages
    if isinstance(value, int):
        return value
    return tuple(int(width) for width in value) if isinstance(value, list | tuple) and value else None


def _expansion(model: Any) -> int:
    return next(
        (module.expansion for module in model.modules() if isinstance(getattr(module, "expansion", None), int)), 1
    )


def _put_small_stem(model: nn.Module, in_channels: int) -> None:
    """Puts a 3 × 3 convolution with stride 1 in place of a ResNet's stem, initialised as timm does its convolutions."""
    width = cast(nn.BatchNorm2d, model.bn1).num_features
    model.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


def _refuse_cut_patches(model: nn.Module, image_size: tuple[int, int], where: str) -> None:
    """Raises ValueError where patches would not tile the image: the rest of it would be cut off without a word."""
    from timm.layers import PatchEmbed

    for module in model.modules():
        if isinstance(module, PatchEmbed) and not getattr(module, "dynamic_img_pad", False):
            patch = tuple(module.patch_size)
            if any(side % step for side, step in zip(image_size, patch)):
                raise ValueError(
                    f"{where} must have images whose sides are multiples of its patch of {_by(patch)} pixels, "
                    f"got {_by(image_size)} (set patch_size, or recipe.image_size)"
                )


def _json(settings: Settings) -> dict[str, Any]:
    return {name: to_json(value) for name, value in settings}


def _by(size: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in size)
