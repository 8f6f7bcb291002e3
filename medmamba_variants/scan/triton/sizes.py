"""The sizes of one scan on a GPU, and what follows from them for a launch of the Triton kernels."""

from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor

# Steps whose loads wait together, and whose states the backward holds in registers.
GROUP = 4
# States of a program's tile for each of its warps, at most.
TILE = 512
# Left to itself the assembler spills a few registers to memory to make room for more programs.
REGISTERS = 255
# With as many registers a multiprocessor holds no more than these.
MAXIMUM_WARPS = 8
MAXIMUM_BLOCK, MINIMUM_BLOCK = 64, 4
# Blocks of channels that are measured against each other: the largest and its halves.
CANDIDATES = 3


def chunk_length(steps: int) -> int:
    """Steps between two checkpoints, a multiple of GROUP."""
    # Memory is states · steps / chunk checkpoints and states · chunk / GROUP notes: least at the root of GROUP · steps.
    return max(1, -(-isqrt(GROUP * steps) // GROUP)) * GROUP


@dataclass(frozen=True)
class Sizes:
    """The sizes of one scan and what its path needs; `block` below is a number of channels, a program's share."""

    batch: int
    length: int
    channels: int
    states: int
    directions: int
    steps: int
    # Whether a direction pauses, or the last group of steps ends beyond the path, which looks the same.
    pauses: bool
    # Whether the state starts anew somewhere.
    resets: bool
    # Whether every direction visits every position.
    complete: bool
    deterministic: bool

    @staticmethod
    def of(x: Tensor, A: Tensor, table: Tensor, pauses: bool, resets: bool) -> "Sizes":
        """The sizes of a scan of x along a path that pauses and has marks, or not."""
        batch, length, channels = x.shape
        directions, steps = table.shape
        return Sizes(
            batch=batch,
            length=length,
            channels=channels,
            states=A.shape[2],
            directions=directions,
            steps=steps,
            pauses=pauses or steps % GROUP != 0,
            resets=resets,
            # A direction visits a position once at most.
            complete=steps == length and not pauses,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )

    @property
    def chunk(self) -> int:
        return chunk_length(self.steps)

    @property
    def padded_states(self) -> int:
        return 1 << (self.states - 1).bit_length()

    @property
    def in_turn(self) -> bool:
        """Whether one program takes all directions in turn, so that their sum has an order."""
        return self.deterministic and self.directions > 1

    @property
    def wide(self) -> bool:
        """Whether offsets within a batch item need 64 bits."""
        return self.length * self.directions * max(self.channels, self.states) >= 1 << 31

    @property
    def forward_tile(self) -> int:
        """States of a program's tile for each warp of the forward kernel."""
        # Sixteen a thread, as far as they fit into the registers: benchmarks/triton_registers.py tells.
        if self.in_turn and self.padded_states == 16 and self.states < 16:
            # Sixteen channels spill on sm_100.
            return TILE // 4
        return TILE if self.states <= 16 else TILE // 2

    @property
    def backward_tile(self) -> int:
        """States of a program's tile for each warp of the backward kernel."""
        # On sm_100 a full tile spills where the last block of channels is not full.
        plain = not (self.pauses or self.resets or self.wide or self.channels % (TILE // self.padded_states))
        return TILE if plain and self.states == 16 else TILE // 2

    def candidates(self, tile: int) -> list[int]:
        """Blocks that may be best, largest first."""
        largest = max(MINIMUM_BLOCK, min(MAXIMUM_BLOCK, tile // self.padded_states))
        # Half of a block must not lie beyond the channels.
        largest = min(largest, max(MINIMUM_BLOCK, 1 << (self.channels - 1).bit_length()))
        return [largest >> i for i in range(CANDIDATES) if largest >> i >= MINIMUM_BLOCK]

    def blocks(self, block: int) -> int:
        """How many blocks the channels make."""
        return -(-self.channels // block)

    def programs(self, block: int) -> int:
        """How many programs a launch has."""
        return self.batch * self.blocks(block) * (1 if self.in_turn else self.directions)

    def options(self, block: int, tile: int) -> dict[str, int]:
        """Triton's options for a launch."""
        options = {"num_warps": min(max(1, block * self.padded_states // tile), MAXIMUM_WARPS)}
        # An option of Nvidia's assembler.
        return options if torch.version.hip else options | {"maxnreg": REGISTERS}

    def integers(self, block: int) -> tuple[int, ...]:
        """The kernels' integer arguments in their order, as far as both have them."""
        return (
            self.length,
            self.channels,
            self.states,
            self.directions,
            self.steps,
            self.blocks(block),
            self.directions if self.in_turn else 1,
            self.chunk,
            -(-self.steps // self.chunk) - 1,
        )

    def constants(self, block: int) -> dict[str, Any]:
        """The kernels' compile-time constants, as far as both have them."""
        return {
            "BLOCK": block,
            "STATES": self.padded_states,
            "GROUP": GROUP,
            "SUM": "none" if self.directions == 1 else "in turn" if self.in_turn else "atomic",
            "PAUSES": self.pauses,
            "RESETS": self.resets,
            "ALL_CHANNELS": self.channels % block == 0,
            "ALL_STATES": self.states == self.padded_states,
            "WIDE": self.wide,
        }
