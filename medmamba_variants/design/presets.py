"""Presets, named variants as data: the axes that they set, and their sources."""

from __future__ import annotations

from typing import Any

# Name → (source, axes). Whatever a preset leaves out is as in the published MedMamba-T.
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "medmamba_t": ("MedMamba's code, T", {}),
    "medmamba_s": ("MedMamba's code, S", {"depths": (2, 2, 8, 2)}),
    "medmamba_b": ("MedMamba's code, B", {"depths": (2, 2, 12, 2), "dims": (128, 256, 512, 1024)}),
    "nano": (
        "this project, for 28-pixel images on a CPU: maps of 14, 7 and 4",
        {"patch_size": 2, "depths": (1, 2, 1), "dims": (32, 64, 128), "d_state": 8, "odd_maps": "pad"},
    ),
    "micro": (
        "this project, for 64-pixel images on a CPU: maps of 16, 8, 4 and 2",
        {"depths": (1, 1, 2, 1), "dims": (32, 64, 128, 256), "d_state": 8, "odd_maps": "pad"},
    ),
}
