"""Systems of the list that work on frequencies: wavelets, Fourier and cosine transforms, heat conduction."""

from __future__ import annotations

from medmamba_variants.systems.system import ENCODER_ONLY, OWN_PLAN, System

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
        axes={
            "branches": [
                [[1.0, "wavelet_conv"]],
                [[1.0, "wavelet_conv"]],
                [[0.5, "fft_block"], [0.5, "ss2d"]],
                [[0.5, "fft_block"], [0.5, "ss2d"]],
            ],
            "kernel_size": 3,
            "fusion": "concat",
            "attention": ["squeeze_excite", "squeeze_excite", "none", "none"],
        },
        deviates=f"{ENCODER_ONLY}; wavelet bands are convolved depth-wise; {OWN_PLAN}",
    ),
    System(
        "wtcm_unet",
        "WTCM-UNet",
        "papers",
        29,
        "Small convolutions of wavelet bands, and a scan.",
        "fragment",
        2,
        axes={"branches": [[0.5, "wavelet_conv"], [0.5, "ss2d"]], "wavelet_levels": 2},
        deviates=f"{ENCODER_ONLY}; how both meet is inferred from the fragment; {OWN_PLAN}",
    ),
    System(
        "dual_domain_mamba",
        "Dual-domain guided vision Mamba",
        "papers",
        30,
        "Scans of the map and of its spectrum.",
        "fragment",
        2,
        axes={"branches": [[0.5, "ss2d"], [0.5, "spectral_scan"]]},
        deviates=(
            f"{ENCODER_ONLY}; scans of the map and of its spectrum on half of the channels each, in every stage; "
            f"{OWN_PLAN}"
        ),
    ),
    System(
        "fmamba",
        "FMamba",
        "papers",
        59,
        "The scan beside a learned filter of the Fourier transform.",
        "abstract",
        2,
        axes={"branches": [[1.0, "fourier_filter"], [1.0, "ss2d"]], "fusion": "conv1x1"},
        deviates=f"{ENCODER_ONLY}; joined by a 1×1 convolution, where the abstract names no fusion; {OWN_PLAN}",
    ),
    System(
        "spectral_mamba_unet",
        "SpectralMamba-UNet",
        "papers",
        62,
        "Low cosine frequencies are scanned, high ones convolved; channels are weighted by their spectrum.",
        "abstract",
        2,
        axes={"branches": [[1.0, "dct_split"]]},
        deviates=f"{ENCODER_ONLY}; without weights of channels by their spectrum; {OWN_PLAN}",
    ),
    System(
        "ms_vmunet",
        "MS-VMUNet",
        "papers",
        69,
        "Bands of frequencies as groups of channels, by its title.",
        "title",
        2,
        axes={"branches": [[0.5, "ss2d"], [0.5, "dct_split"]]},
        deviates=(
            f"{ENCODER_ONLY}; the title alone is known, which names several spectra: scans of the map and of its "
            f"low frequencies on half of the channels each, a guess; {OWN_PLAN}"
        ),
    ),
    System(
        "u_mamba_heat",
        "U-Mamba with heat conduction",
        "papers",
        82,
        "Heat conduction at the bottleneck of a U-Mamba.",
        "abstract",
        2,
        axes={
            "branches": [[[1.0, "conv"]], [[1.0, "conv"]], [[1.0, "conv"]], [[1.0, "conv"]], [[1.0, "heat"]]],
            "depths": [2, 2, 2, 2, 1],
            "dims": [96, 192, 384, 768, 768],
            "downsampling": ["strided_conv", "strided_conv", "strided_conv", "none"],
        },
        deviates=(
            f"{ENCODER_ONLY}; heat conduction at the bottleneck, behind its convolutions; two blocks a stage, "
            "widths of MedMamba-T"
        ),
    ),
)
