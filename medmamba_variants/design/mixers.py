"""Mixers, the operators of branches, each with its own axes."""

from __future__ import annotations

from dataclasses import dataclass

from medmamba_variants.design.components import Mixer, by_word
from medmamba_variants.design.convolutions import (
    Axial,
    ConvNeXt,
    Depthwise,
    Identity,
    Inception,
    MultiScale,
    Reparametrised,
    Strips,
)
from medmamba_variants.design.gated import GatedConv
from medmamba_variants.design.local.adaptive import Deformable, Dynamic, Morphology, SelectiveKernel
from medmamba_variants.design.local.products import GatedSpatial, HighOrder, HighOrderScan
from medmamba_variants.design.scan_mixer import SS2D, TensorScan
from medmamba_variants.design.sequences.attention import Attention, LinearAttention
from medmamba_variants.design.sequences.duality import SSD, NonCausalSSD
from medmamba_variants.design.sequences.recurrent import GRU, LSTM, MLSTM, RNN, NmODE, NmODESS2D
from medmamba_variants.design.sequences.state_spaces import H3, Mamba3, TwoD
from medmamba_variants.design.spectral.mixers import FFTBlock, FourierFilter, Haar, Heat, PooledLowHigh, WaveletConv
from medmamba_variants.design.spectral.scans import DCTSplit, SpectralScan


@dataclass(frozen=True)
class Conv(Mixer):
    """The published local branch: two full 3×3 convolutions and one 1×1."""

    word = "conv"
    builds = "medmamba_variants.parts.mixers.conv:ConvBranch"
    # upstream: drop path belongs to the scan branch alone.
    drops_path = False

    def macs(self, channels: int, height: int, width: int) -> int:
        return (9 + 9 + 1) * channels**2 * height * width


MIXERS: dict[str, type[Mixer]] = by_word(
    Conv,
    SS2D,
    Identity,
    Depthwise,
    Inception,
    Axial,
    ConvNeXt,
    MultiScale,
    Strips,
    Reparametrised,
    SelectiveKernel,
    Deformable,
    Dynamic,
    Morphology,
    GatedSpatial,
    HighOrder,
    HighOrderScan,
    GatedConv,
    SSD,
    NonCausalSSD,
    LinearAttention,
    Attention,
    MLSTM,
    LSTM,
    GRU,
    RNN,
    NmODE,
    NmODESS2D,
    H3,
    Mamba3,
    TwoD,
    Heat,
    FourierFilter,
    FFTBlock,
    Haar,
    WaveletConv,
    PooledLowHigh,
    TensorScan,
    SpectralScan,
    DCTSplit,
)
