"""What the header of an image file says: how many pictures, colour or none, bits a channel."""

from __future__ import annotations

from dataclasses import dataclass


class UnfitError(ValueError):
    """Error of a file that is not what it must be; its text says what must hold and what came, without the name."""


@dataclass(frozen=True)
class Header:
    """What a file's header says of its pictures.

    `depth` is empty where a channel has eight bits or fewer, else it says what a channel has, such as "16 bits".
    """

    frames: int
    colour: bool
    depth: str = ""
