"""Mixers with memory: the matrix memory of xLSTM, LSTM, GRU and RNN, and the neural memory ODE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medmamba_variants.design.components import Mixer, axis, check_norm, shared
from medmamba_variants.design.gated import D_CONV, Directed
from medmamba_variants.design.kinds import Choice, Flag, Number, SettingError, whole
from medmamba_variants.design.scan_mixer import SS2D
from medmamba_variants.design.sequences.duality import HEADS, check_heads, dual_macs

RNN_UNITS = axis(
    1.0,
    Number(0.125, 4.0),
    "units of a recurrent network, in each sense of reading, for each channel of its branch",
    "Sequencer, section 3.2, there a quarter",
    probe=0.5,
)
RNN_SWEEP = axis(
    "raster",
    Choice(("raster", "cross")),
    "what a recurrent network reads as a sequence: the whole map row by row, or every row and every column by itself",
    "Visin 2015 (ReNet); cross: Sequencer, with one set of weights for both",
    probe="cross",
)
BIDIRECTIONAL = axis(
    True,
    Flag(),
    "whether a second recurrent network reads every sequence from its end",
    "Schuster & Paliwal 1997",
    probe=False,
)
ODE_STEPS = axis(
    4,
    whole(1, 64),
    "steps in which the equation of neural memory is solved from time 0 to 1",
    "nmODE, Yi 2023",
    probe=8,
)
ODE_SOLVER = axis(
    "euler",
    Choice(("euler", "midpoint", "rk4")),
    "explicit rule of those steps: Euler's, the midpoint's, or the classical of fourth order",
    "nmODE, Yi 2023; Runge-Kutta",
    probe="rk4",
)


@dataclass(frozen=True)
class MLSTM(Directed):
    """The matrix memory of xLSTM: a scan whose states are written and forgotten by gates of their own (Vision-LSTM)."""

    word = "mlstm"
    builds = "medmamba_variants.parts.mixers.sequences.mlstm:MLSTMBranch"

    heads: int = shared(HEADS)

    def check(self, channels: int, stage: int) -> None:
        super().check(channels, stage)
        check_heads(self.word, self.inner(channels), self.heads, stage)
        if self.inner(channels) < 2 * self.heads:
            raise SettingError(
                ("heads",),
                "must leave every head two channels, since the layer norm of one is constant; "
                f"got {self.heads} heads for the {self.inner(channels)} inner channels of mlstm in stage {stage}",
            )

    def macs(self, channels: int, height: int, width: int) -> int:
        length, inner, directions = height * width, self.inner(channels), len(self.directions)
        each = inner // self.heads
        # Queries, keys and values are maps within heads; both gates see all three.
        projections = 3 * inner * each + 3 * inner * 2 * directions * self.heads
        # One column more than there are values: the sum of their weights.
        scans = directions * self.heads * dual_macs(length, 1, each, each + 1)
        return length * (self.wiring_macs(channels, inner, 0) + projections) + scans


@dataclass(frozen=True)
class _Recurrent(Mixer):
    """A recurrent network over the map's positions, then a linear map."""

    # Linear maps of input and state in a cell.
    gates: ClassVar[int]

    rnn_units: float = shared(RNN_UNITS)
    rnn_sweep: str = shared(RNN_SWEEP)
    bidirectional: bool = shared(BIDIRECTIONAL)

    def units(self, channels: int) -> int:
        """Units in each sense of reading."""
        return int(self.rnn_units * channels)

    def read(self, channels: int) -> int:
        """Numbers that the last linear map reads for each position."""
        return self.units(channels) * (2 if self.bidirectional else 1) * (2 if self.rnn_sweep == "cross" else 1)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)
        if self.units(channels) < 1:
            raise SettingError(
                ("rnn_units",),
                f"must leave {self.word} a unit, got {self.rnn_units:g} for its {channels} channels in stage {stage}",
            )

    def macs(self, channels: int, height: int, width: int) -> int:
        cell = self.gates * (channels + self.units(channels))
        return height * width * self.read(channels) * (cell + channels)


@dataclass(frozen=True)
class LSTM(_Recurrent):
    """Long short-term memory that reads the map's positions one after the other (Hochreiter & Schmidhuber 1997)."""

    word = "lstm"
    builds = "medmamba_variants.parts.mixers.sequences.recurrent:RecurrentBranch"
    gates = 4


@dataclass(frozen=True)
class GRU(_Recurrent):
    """Gated recurrent units that read the map's positions one after the other (Cho 2014)."""

    word = "gru"
    builds = "medmamba_variants.parts.mixers.sequences.recurrent:RecurrentBranch"
    gates = 3


@dataclass(frozen=True)
class RNN(_Recurrent):
    """A plain recurrent network, h = tanh(W x + U h), that reads the map's positions one by one (Elman 1990)."""

    word = "rnn"
    builds = "medmamba_variants.parts.mixers.sequences.recurrent:RecurrentBranch"
    gates = 1


@dataclass(frozen=True)
class NmODE(Mixer):
    """Neural memory: each channel moves by ẏ = −y + sin²(y + γ) from 0, γ being made of the input (nmODE)."""

    word = "nmode"
    builds = "medmamba_variants.parts.mixers.sequences.nmode:NmODEBranch"

    d_conv: int = shared(D_CONV)
    ode_steps: int = shared(ODE_STEPS)
    ode_solver: str = shared(ODE_SOLVER)

    def check(self, channels: int, stage: int) -> None:
        check_norm(self.word, channels, stage)

    def macs(self, channels: int, height: int, width: int) -> int:
        return height * width * (2 * channels**2 + self.d_conv**2 * channels)


@dataclass(frozen=True)
class NmODESS2D(SS2D):
    """Neural memory after the selective scan: γ of nmODE's equation is what the scan yields (nmSSM-UNet)."""

    word = "nmode_ss2d"
    builds = "medmamba_variants.parts.mixers.sequences.nmode:NmODESS2DBranch"

    ode_steps: int = shared(ODE_STEPS)
    ode_solver: str = shared(ODE_SOLVER)

    def macs(self, channels: int, height: int, width: int) -> int:
        return super().macs(channels, height, width) + channels**2 * height * width
