"""Systems of the list that work on frequencies: wavelets, Fourier and cosine transforms, heat conduction."""

from __future__ import annotations

from medmamba_variants.systems.system import System

SYSTEMS = (
    System(
        "freq_conv_mamba",
        "FreqConvMamba",
        "papers",
        18,
        "Convolutions and Haar wavelets in shallow stages; in deep ones half of the channels through a block on the "
        "spectrum, half through the scan.",
        "code",
        2,
        code="ccode-Rookie/FreqConvMamba",
        waits_for="mixers haar and fft_block",
    ),
    System(
        "wtcm_unet",
        "WTCM-UNet",
        "papers",
        29,
        "Small convolutions of wavelet bands, and a scan.",
        "fragment",
        2,
        waits_for="mixer haar",
    ),
    System(
        "dual_domain_mamba",
        "Dual-domain guided vision Mamba",
        "papers",
        30,
        "Scans of the map and of its spectrum.",
        "fragment",
        2,
        waits_for="a scan of the spectrum",
    ),
    System(
        "fmamba",
        "FMamba",
        "papers",
        59,
        "The scan beside a learned filter of the Fourier transform.",
        "abstract",
        2,
        waits_for="mixer fourier_filter",
    ),
    System(
        "spectral_mamba_unet",
        "SpectralMamba-UNet",
        "papers",
        62,
        "Low cosine frequencies are scanned, high ones convolved; channels are weighted by their spectrum.",
        "abstract",
        2,
        waits_for="mixer dct_split",
    ),
    System(
        "ms_vmunet",
        "MS-VMUNet",
        "papers",
        69,
        "Bands of frequencies as groups of channels, by its title.",
        "title",
        2,
        waits_for="the paper: the title alone does not tell the mechanism",
    ),
    System(
        "u_mamba_heat",
        "U-Mamba with heat conduction",
        "papers",
        82,
        "Heat conduction at the bottleneck of a U-Mamba.",
        "abstract",
        2,
        waits_for="mixer heat",
    ),
)
