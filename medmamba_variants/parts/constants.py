"""Constant tensors that hang on sizes and device alone, computed once and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch
from torch.utils._python_dispatch import _disable_current_modes

from medmamba_variants.scan.paths import constant_of_graphs

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def kept(make: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, which keeps its last 64 results and is a constant of compiled graphs.

    It may be asked first in inference mode or under a default device: what it makes serves training all the same.
    """
    cached = cast(Callable[Arguments, Result], lru_cache(maxsize=64)(make))

    @wraps(make)
    def constant(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        # What inference mode makes could not be used in training afterwards; and a default device is for weights.
        # And in place of what a mode watches, as that of an export, it may put a shape, which nobody can compute with.
        with _disable_current_modes(), torch.inference_mode(False), torch.device("cpu"):
            return cached(*args, **kwargs)

    return constant_of_graphs(constant)
