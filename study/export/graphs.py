"""Graphs of trained networks in torch's and in ONNX's operators alone, each checked against the network."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from medmamba_variants.scan.loops import as_loops
from study.export.trained import Trained

# The key under which both kinds of file hold the description, as JSON.
HEADER = "medmamba"
# Of probabilities, on random images.
TOLERANCE = 1e-4
# The batch that is traced; and those that are compared, of other sizes.
TRACED, COMPARED = 2, (1, 3)
NEEDED = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "pip install 'medmamba-suite[export]'"
_LOGGERS = ("torch", "torch.onnx", "onnxscript", "onnx_ir", "torch.export")


def check_onnx(needed: tuple[str, ...] | None = None) -> None:
    """Raises ValueError, with the line that installs them, where ONNX's libraries are missing."""
    needed = NEEDED if needed is None else needed
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"for ONNX {', '.join(needed)} must be installed, got no {' and no '.join(missing)} ({INSTALL})"
        )


def torch_file(trained: Trained) -> tuple[bytes, float]:
    """A program of torch.export for `torch.export.load`, and how far its probabilities are off on random images."""
    program = traced(trained)
    buffer = io.BytesIO()
    with quiet():
        try:
            torch.export.save(program, buffer, extra_files={HEADER: json.dumps(trained.about, ensure_ascii=False)})
            buffer.seek(0)
            run = torch.export.load(buffer).module()
        except Exception as error:  # torch's writer fails by assertions, too.
            raise ValueError(_refusal("torch", error)) from None
    worst = _worst(trained, lambda images: run(images).numpy())
    return buffer.getvalue(), worst


def onnx_file(trained: Trained) -> tuple[bytes, float]:
    """A model of standard ONNX operators, its scans as the operator Scan, and how far its probabilities are off."""
    check_onnx()
    import onnx
    import onnxruntime

    program = traced(trained)
    with quiet():
        try:
            made = torch.onnx.export(
                program, (_images(trained, TRACED),), dynamo=True, verbose=False, external_data=False,
                input_names=["images"], output_names=["probabilities"],
            )  # fmt: skip
        except torch.onnx.errors.OnnxExporterError as error:
            raise ValueError(_refusal("onnx", error)) from None
    assert made is not None
    model = made.model_proto
    onnx.helper.set_model_props(model, {HEADER: json.dumps(trained.about, ensure_ascii=False)})
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, _worst(trained, lambda images: session.run(None, {"images": images.numpy()})[0])


def traced(trained: Trained) -> ExportedProgram:
    """The network as one graph for any number of images, in torch's own operators.

    Raises ValueError, one line, that names the operator or the statement that no graph can hold.
    """
    with quiet(), torch.no_grad(), as_loops():
        try:
            program = torch.export.export(
                trained.predictor,
                (_images(trained, TRACED),),
                dynamic_shapes={"images": {0: Dim.DYNAMIC}},
                # The other way would keep the path's tables, made while it traces, for networks that run afterwards.
                strict=True,
            )
        except Exception as error:
            raise ValueError(_refusal("torch", error)) from None
    foreign = sorted(_foreign_operators(program))
    if foreign:
        raise ValueError(
            f"the network must consist of torch's own operators to run without this suite, got {', '.join(foreign)}"
        )
    return program


def _foreign_operators(program: ExportedProgram) -> set[str]:
    """Names of operators that only this suite's code has."""
    graphs = [module for module in program.graph_module.modules() if isinstance(module, GraphModule)]
    targets = [node.target for graph in graphs for node in graph.graph.nodes if node.op == "call_function"]
    return {
        target.name().partition(".")[0]
        for target in targets
        if isinstance(target, torch._ops.OpOverload) and target.namespace not in ("aten", "prims")
    }


def _images(trained: Trained, count: int) -> torch.Tensor:
    """Random images, coarse and fine, dark and bright: of noise alone a network may always say the same."""
    generator = torch.Generator().manual_seed(count)
    height, width, channels = trained.shape
    coarse, fine = (
        torch.rand(count, channels, rows, columns, generator=generator) for rows, columns in ((3, 3), (height, width))
    )
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
    level, contrast = torch.rand(2, count, 1, 1, 1, generator=generator)
    mixed = level + contrast * (smooth + 0.3 * fine - 0.65)
    return (255 * mixed.clamp(0, 1)).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _worst(trained: Trained, run: Callable[[torch.Tensor], np.ndarray]) -> float:
    """The largest difference of probabilities on random images. Raises ValueError where it is above the tolerance."""
    worst = 0.0
    for count in COMPARED:
        images = _images(trained, count)
        with torch.no_grad():
            expected = trained.predictor(images).numpy()
        found = np.asarray(run(images))
        if found.shape != expected.shape:
            raise ValueError(f"the file must give probabilities {expected.shape}, got {found.shape}")
        worst = max(worst, float(np.abs(found - expected).max()))
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the file's probabilities must agree with the network's to {TOLERANCE:g}, got a difference of {worst:.2g} "
            "(something in the network is not the same twice, or not in the file)"
        )
    return worst


def _refusal(kind: str, error: BaseException) -> str:
    """One line on why a network cannot be exported, with the operator's name where the exporter says it."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    text = " ".join(" ".join(texts).split())
    operator = re.search(r"OpOverload\(op='([^']+)'", text) or re.search(r"for ([\w:.]+::[\w.]+)", text)
    if operator:
        return f"the network must consist of operators that {kind} has, got {operator[1]}"
    return f"the network must be one graph to be exported to {kind}, got {text[:200]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Context without the exporters' notes, which concern those who write exporters."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)
