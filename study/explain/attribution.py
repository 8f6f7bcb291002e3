"""Attribution of a trained network: Grad-CAM, features, effective receptive fields, deletion and insertion curves.

Functions of a network and its inputs, (images, channels, height, width) as the network takes them. They leave the
network as they found it: weights, gradients, mode and hooks. Everything runs in float32 without autocast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from analysis.explanations.pointing import PLACES, places
from medmamba_variants.model import MedMambaVariant

BATCH = 64
# Width of the blur from which insertion starts, as a share of the longer side: no finding survives it.
BLUR = 0.1


@dataclass(frozen=True, eq=False)
class Seen:
    """Results of a network on images: probabilities, features and maps.

    probabilities (images, classes); features (images, channels), the input of the head; targets (images,), the class
    that each map is for; maps, one tensor (images, rows, columns) per stage, on the stage's own grid.
    """

    probabilities: Tensor
    features: Tensor
    targets: Tensor
    maps: tuple[Tensor, ...]


def look(model: MedMambaVariant, images: Tensor, targets: Tensor | None = None) -> Seen:
    """Probabilities, features, and the Grad-CAM maps of every stage for the given classes (None: the predicted ones).

    Grad-CAM (Selvaraju et al. 2017): the channels of a stage's output weighted by the mean gradient of the class's
    logit with respect to them, summed, negative sums cut to zero.
    """
    parts = []
    chosen = None if targets is None else targets.to(images.device)
    with _examined(model):
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            parts.append(_look(model, images[part], None if chosen is None else chosen[part]))
    return Seen(
        probabilities=torch.cat([seen.probabilities for seen in parts]),
        features=torch.cat([seen.features for seen in parts]),
        targets=torch.cat([seen.targets for seen in parts]),
        maps=tuple(torch.cat(maps) for maps in zip(*(seen.maps for seen in parts))),
    )


def receptive_fields(model: MedMambaVariant, images: Tensor, generator: torch.Generator) -> Tensor:
    """Receptive fields of outputs at PLACES: energy (stages, places, height, width), a mean over the images.

    The entry of a pixel is Σ over channels c of the output and input channels k of (∂output_c / ∂pixel_k)². It is
    estimated, not summed: the gradient of Σ_c ±output_c with random signs has this expected square (Hutchinson), so
    that one pass does for all channels. Effective receptive fields are due to Luo et al. (2016), who sum over channels
    instead, so that gradients of opposite sign cancel.
    """
    if len(images) == 0:
        raise ValueError("images must be at least one, got none")
    total: Tensor | None = None
    with _examined(model):
        for part in images.split(BATCH):
            inputs = part.detach().clone().requires_grad_()
            with _recorded(model) as outputs:
                model(inputs)
            fields = []
            for output in outputs[:-1]:
                for row, column in places(output.shape[1], output.shape[2]):
                    signs = torch.randint(0, 2, (len(part), output.shape[3]), generator=generator) * 2 - 1
                    scalar = (output[:, row, column] * signs.to(output)).sum()
                    (gradient,) = torch.autograd.grad(scalar, inputs, retain_graph=True)
                    fields.append(gradient.square().sum((0, 1)).double())
            stacked = torch.stack(fields).unflatten(0, (len(model.stages), len(PLACES)))
            total = stacked if total is None else total + stacked
    assert total is not None
    return total / len(images)


def deletion_and_insertion(
    model: MedMambaVariant, images: Tensor, importance: Tensor, targets: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The target's probability as pixels are removed, and put back, most important first: two (images, steps + 1).

    importance (images, height, width) orders each image's pixels; equal ones come in random order. Deletion starts from
    the image and sets pixels to zero, the mean of the training images. Insertion starts from the blurred image and puts
    pixels back. At step k, k / steps of the pixels have changed. After Petsiuk et al., "RISE" (2018).
    """
    height, width = images.shape[2:]
    rank = _ranks(importance.flatten(1), generator).view(-1, 1, height, width).to(images.device)
    sigma = BLUR * max(height, width)
    # Reflection at the border needs a kernel that fits in the image.
    reach = min(math.ceil(3 * sigma), min(height, width) - 1)
    deletion, insertion = [], []
    with _examined(model), torch.no_grad():
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            whole, order, classes = images[part], rank[part], targets[part].to(images.device)[:, None]
            blurred = gaussian_blur(whole, [2 * reach + 1] * 2, [sigma, sigma])
            gone: list[Tensor] = []
            back: list[Tensor] = []
            for step in range(steps + 1):
                changed = order < round(step / steps * height * width)
                for base, other, found in ((whole, torch.zeros_like(whole), gone), (blurred, whole, back)):
                    probabilities = model(torch.where(changed, other, base)).softmax(1)
                    found.append(probabilities.gather(1, classes))
            deletion.append(torch.cat(gone, dim=1))
            insertion.append(torch.cat(back, dim=1))
    return torch.cat(deletion), torch.cat(insertion)


def _look(model: MedMambaVariant, images: Tensor, targets: Tensor | None) -> Seen:
    # Averaged weights require no gradient, so the images must.
    inputs = images.detach().clone().requires_grad_()
    with _recorded(model) as outputs:
        logits = model(inputs)
    *stages, features = outputs
    chosen = logits.argmax(1) if targets is None else targets
    # In evaluation mode no image sees another, so one sum serves them all.
    gradients = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), stages)
    maps = []
    for output, gradient in zip(stages, gradients):
        weights = gradient.mean((1, 2), keepdim=True)
        maps.append((weights * output).sum(-1).clamp_min(0).detach())
    return Seen(logits.detach().softmax(1), features.detach(), chosen, tuple(maps))


def _ranks(values: Tensor, generator: torch.Generator) -> Tensor:
    """The rank of each value (images, pixels) in its row, the largest first, ties in random order."""
    shuffled = torch.rand(values.shape, generator=generator).argsort(1)
    order = shuffled.gather(1, values.cpu().gather(1, shuffled).argsort(stable=True, dim=1, descending=True))
    ranks = torch.empty_like(order)
    return ranks.scatter_(1, order, torch.arange(values.shape[1]).expand_as(order))


@contextmanager
def _examined(model: MedMambaVariant) -> Iterator[None]:
    """Context with the network in evaluation mode and gradients on."""
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def _recorded(model: MedMambaVariant) -> Iterator[list[Tensor]]:
    """Context that records the output of every stage, then the input of the head, of the pass inside it."""
    outputs: list[Tensor] = []
    handles = [
        stage.register_forward_hook(lambda _module, _inputs, output: outputs.append(output)) for stage in model.stages
    ]
    handles.append(model.head.register_forward_pre_hook(lambda _module, inputs: outputs.append(inputs[0])))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
