"""Systems of the list that save weights: groups of channels that share a scan, learned skips, one direction."""

from __future__ import annotations

from medmamba_variants.systems.system import ENCODER_ONLY, OWN_PLAN, System

SYSTEMS = (
    System(
        "asp_vmunet",
        "ASP-VMUNet",
        "papers",
        6,
        "Sub-grids of every other pixel are scanned alone, four groups of channels share weights and change partners "
        "from block to block; a softmax joins them with a depth-wise convolution.",
        "code",
        2,
        code="BaoBao0926/ASP-VMUNet",
        axes={
            "branches": [
                [0.25, {"ss2d": {"scan_directions": "rows", "inner_conv": "causal1d"}}],
                [0.25, {"ss2d": {"scan_directions": "rows", "inner_conv": "causal1d"}}],
                [0.25, {"ss2d": {"scan_directions": "rows", "inner_conv": "causal1d"}}],
                [0.25, {"ss2d": {"scan_directions": "rows", "inner_conv": "causal1d"}}],
            ],
            "branch_weights": "shared",
            "shift_round": True,
            "scan_atrous": 2,
            "atrous_weights": "own",
            "fusion": "conv1x1",
        },
        deviates=(
            f"{ENCODER_ONLY}; without the depth-wise convolution beside it and the softmax that joins both; {OWN_PLAN}"
        ),
    ),
    System(
        "mambau_lite",
        "MambaU-Lite",
        "papers",
        7,
        "Both halves of the channels go through one scan, with learned skips, beside a gate from pooling; axial "
        "convolutions.",
        "code",
        2,
        paper="Nguyen et al., MambaU-Lite, 2024 (arXiv 2412.01405)",
        code="nqnguyen812/MambaU-Lite",
        axes={
            "branches": [[0.5, "ss2d"], [0.5, "ss2d"]],
            "branch_weights": "shared",
            "residual": "learned_skip",
            "fusion": "concat",
        },
        deviates=f"{ENCODER_ONLY}; without axial convolutions and the gate from pooling; {OWN_PLAN}",
    ),
    System(
        "ac_mambaseg",
        "AC-MambaSeg",
        "papers",
        9,
        "A depth-wise convolution, then the scan, with a learned skip; a softmax over dilated convolutions at the "
        "bottleneck.",
        "code",
        2,
        paper="Nguyen et al., AC-MambaSeg, 2024",
        code="vietthanh2710/AC-MambaSeg",
        axes={
            "branches": [
                [[0.5, "depthwise"], [0.5, "ss2d"]],
                [[0.5, "depthwise"], [0.5, "ss2d"]],
                [[0.5, "depthwise"], [0.5, "ss2d"]],
                [[1.0, "selective_kernel"]],
            ],
            "kernel_size": 3,
            "dilations": 3,
            "cascade": True,
            "residual": "learned_skip",
            "attention": ["cbam", "cbam", "cbam", "none"],
        },
        deviates=(
            f"{ENCODER_ONLY}: its attention on the main path rather than on skips; the scan's half of the channels "
            "also reads what the depth-wise convolution made; the selective kernel fills the last stage; "
            f"{OWN_PLAN}"
        ),
    ),
    System(
        "mafunet",
        "MAFUNet",
        "papers",
        12,
        "Four groups of channels, each scanned after the output of the group before was added; maxima and gates on "
        "channels join them.",
        "code",
        2,
        code="csgopher/MAFUNet",
        axes={
            "branches": [[0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"]],
            "scan_directions": "rows",
            "inner_conv": "causal1d",
            "cascade": True,
            "fusion": "max_gate",
        },
        deviates=f"{ENCODER_ONLY}; without the gate on places; {OWN_PLAN}",
    ),
    System(
        "sk_vm_pp",
        "SK-VM++",
        "papers",
        36,
        "UNet++ on Res2Net, each node of which shares one scan among four groups of channels.",
        "code",
        2,
        code="wurenkai/SK-VMPlusPlus",
        axes={
            "branches": [[0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"]],
            "scan_directions": "rows",
            "inner_conv": "causal1d",
            "branch_weights": "shared",
            "residual": "learned_skip",
            "fusion": "conv1x1",
        },
        deviates=(
            f"{ENCODER_ONLY}: the layer of its nodes in a classifier; its code scans in one direction with plain "
            f"Mamba, not in four; {OWN_PLAN}"
        ),
    ),
    System(
        "lightm_unet",
        "LightM-UNet",
        "papers",
        51,
        "A scan in one direction with a learned skip, then a linear map; convolutions in stem and decoder alone.",
        "code",
        1,
        paper="Liao et al., LightM-UNet, 2024 (arXiv 2403.05246)",
        code="MrBlankness/LightM-UNet",
        axes={
            "branches": [[1.0, "ss2d"]],
            "scan_directions": "rows",
            "inner_conv": "causal1d",
            "residual": "learned_skip",
        },
        deviates=f"{ENCODER_ONLY}; {OWN_PLAN}",
    ),
    System(
        "ultralight_vm_unet",
        "UltraLight VM-UNet",
        "papers",
        55,
        "Four groups of channels go through one scan with a learned skip, then layer norm and a linear map.",
        "code",
        2,
        paper="Wu et al., UltraLight VM-UNet, 2024 (arXiv 2403.20035)",
        code="wurenkai/UltraLight-VM-UNet",
        axes={
            "branches": [
                [[1.0, "conv"]],
                [[1.0, "conv"]],
                [[1.0, "conv"]],
                [[0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"]],
                [[0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"]],
                [[0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"], [0.25, "ss2d"]],
            ],
            "scan_directions": "rows",
            "inner_conv": "causal1d",
            "branch_weights": "shared",
            "residual": "learned_skip",
            "fusion": "conv1x1",
            "patch_size": 1,
            "depths": [1, 1, 1, 1, 1, 1],
            "dims": [8, 16, 24, 32, 48, 64],
            "downsampling": "max_pool",
        },
        deviates=(
            f"{ENCODER_ONLY}; its code scans in one direction with plain Mamba, not in four as the preprint says: "
            "as its code; one learned skip for the block; MedMamba's convolutions in the first three stages"
        ),
    ),
    System(
        "smm_unet",
        "SMM-UNet",
        "papers",
        58,
        "Groups share a scan; gates choose between its output and the skip.",
        "code",
        2,
        code="guangguangLi/SMM-UNet",
        axes={
            "branches": [[1.0, "ss2d"], [1.0, "identity"]],
            "scan_directions": "rows",
            "inner_conv": "causal1d",
            "fusion": "se_select",
        },
        deviates=(
            f"{ENCODER_ONLY}; one scan of all channels and the skip, between which gates choose, in place of four "
            f"groups; its code scans in one direction with plain Mamba, not in four; {OWN_PLAN}"
        ),
    ),
)
