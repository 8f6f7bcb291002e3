"""Model files of every kind, opened to predict: kept weights, torch.export programs, ONNX models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from study.export.graphs import HEADER, check_onnx, quiet
from study.export.trained import load_trained
from study.training.images import EVALUATION_BATCH, resized

ENDINGS = (".safetensors", ".pt2", ".onnx")


@dataclass(frozen=True)
class Opened:
    """A model that predicts: `run` takes uint8 (batch, height, width, channels) and gives probabilities."""

    run: Callable[[np.ndarray], np.ndarray]
    about: dict[str, Any]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of images (n, height, width, channels) of any one size, resized as cells are."""
        height, width = self.about["image_size"]
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        if tuple(pixels.shape[1:3]) != (height, width):
            pixels = resized(pixels, (height, width))
        return np.concatenate([self.run(part.numpy()) for part in pixels.split(EVALUATION_BATCH)])


def open_model(path: Path) -> Opened:
    """The model in a file that study.launch or study.export wrote. Raises ValueError, one line, for any other."""
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path}: must end in {', '.join(ENDINGS)}, got {path.suffix or 'no ending'}")
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, got {'a folder' if path.exists() else 'nothing there'}")
    if path.suffix == ".safetensors":
        return _kept(path)
    return _program(path) if path.suffix == ".pt2" else _onnx(path)


def _kept(path: Path) -> Opened:
    trained = load_trained(path)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return trained.predictor(torch.from_numpy(images)).numpy()

    return Opened(run, trained.about)


def _program(path: Path) -> Opened:
    extra = {HEADER: ""}
    try:
        with quiet():
            program = torch.export.load(path, extra_files=extra).module()
    except Exception as error:  # torch raises anything from BadZipFile to RuntimeError.
        raise ValueError(
            f"{path}: must be a program of torch.export, got {' '.join(str(error).split())[:160]}"
        ) from None
    about = _described(path, extra[HEADER])

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(program(torch.from_numpy(images)))

    return Opened(run, about)


def _onnx(path: Path) -> Opened:
    check_onnx(("onnxruntime",))
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base.
        raise ValueError(f"{path}: must be an ONNX model, got {' '.join(str(error).split())[:160]}") from None
    about = _described(path, session.get_modelmeta().custom_metadata_map.get(HEADER, ""))
    return Opened(lambda images: np.asarray(session.run(["probabilities"], {"images": images})[0]), about)


def _described(path: Path, text: str | bytes) -> dict[str, Any]:
    if not text:
        raise ValueError(f"{path}: must be a file of study.export, which names its classes, got one without {HEADER}")
    about: dict[str, Any] = json.loads(text)
    return about
