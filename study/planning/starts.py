"""Check before a launch that weights fit the networks that start from them, and what of these stays fresh."""

from __future__ import annotations

from collections.abc import Mapping

from study.data import DatasetInfo
from study.declaration.definition import Study


def starts_told(study: Study, infos: Mapping[str, DatasetInfo]) -> list[str]:
    """One line for each variant that starts from weights; `infos` describe the data sets by name.

    Raises ValueError, naming file, variant and data set, where weights do not fit.
    """
    from medmamba_variants.peers.pretrained import PretrainedNetwork

    lines = []
    for label, variant in study.variants():
        if not isinstance(variant, PretrainedNetwork):
            continue
        import torch

        from medmamba_variants.networks import build_network
        from medmamba_variants.peers.starting import start_from_weights

        found: dict[str, None] = {}
        for name in study.datasets:
            info = infos[name]
            size = study.recipe.size_for(info.image_size)
            try:
                with torch.random.fork_rng(devices=[]):
                    model = build_network(
                        variant, num_classes=len(info.classes), in_channels=info.channels, image_size=size
                    )
                start = start_from_weights(model, variant)["pretrained"]
            except ValueError as error:
                raise ValueError(f"{study.path}: variant {label} on {name}: {error}") from None
            fresh = ", ".join(start["fresh"]) or "nothing"
            adapted = f", adapted to the data's channels: {', '.join(start['adapted'])}" if start["adapted"] else ""
            found[f"fresh: {fresh}{adapted}"] = None
        mode = "frozen features" if variant.features == "frozen" else "all of it trains"
        lines += [f"note: {label} starts from {variant.name} ({mode}); {text}" for text in found]
    return lines
