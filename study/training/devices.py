"""Devices that cells train on."""

import torch


def resolved_device(name: str) -> torch.device:
    """The device for a name: auto, cpu, cuda or cuda:N. Raises ValueError where there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or (kind == "cpu" and number):
        raise ValueError(f"the device must be auto, cpu, cuda or cuda:N, got {name!r}")
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if int(number or 0) >= there:
        raise ValueError(f"the device {name} must be in this machine, which has {there} CUDA devices")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """The name of a device in a record: that of the card, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
