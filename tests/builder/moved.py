"""Modules away from their first values, where an offset, a gate or a statistic that is forgotten shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def moved(module: nn.Module, by: float = 0.3) -> nn.Module:
    """The module in double precision and evaluation mode, parameters and running statistics moved from their values."""
    generator = torch.Generator().manual_seed(0)
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2, generator=generator)
    return module


def moved_branch(component: Any, channels: int, by: float = 0.3) -> Any:
    """The branch of a mixer without drop path, moved."""
    torch.manual_seed(0)
    return moved(component.builder()(channels, component, 0.0), by)
