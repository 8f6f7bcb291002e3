"""Systems of the list whose blocks or stages join convolutions and scans."""

from __future__ import annotations

from medmamba_variants.systems.system import ENCODER_ONLY, OWN_PLAN, System

SYSTEMS = (
    System(
        "dual_branch_resnet",
        "Dual-branch SSM and ResNet",
        "papers",
        1,
        "An encoder of scans and a ResNet side by side, each at full width, joined per stage by depth-wise "
        "convolutions of three sizes.",
        "abstract",
        1,
        paper="Chen et al., 2025",
        axes={"branches": [[1.0, "conv"], [1.0, "ss2d"], [1.0, "multi_scale"]], "fusion": "add"},
        deviates=(
            f"{ENCODER_ONLY}; branches of each block rather than whole encoders are side by side, and the "
            f"convolutions of three sizes that fuse a stage are a branch of their own; {OWN_PLAN}"
        ),
    ),
    System(
        "ms_umamba",
        "MS-UMamba",
        "papers",
        2,
        "MedMamba's split with convolutions of several sizes and attention beside the scan; fusion of scales on skips.",
        "abstract",
        1,
        axes={"branches": [[0.5, "multi_scale"], [0.5, "ss2d"]]},
        deviates=f"{ENCODER_ONLY}; without attention over places; {OWN_PLAN}",
    ),
    System(
        "ssrepvm_unet",
        "SSRepVM-UNet",
        "papers",
        5,
        "Half of the channels through a re-parametrised depth-wise convolution, half through the scan.",
        "fragment",
        1,
        axes={"branches": [[0.5, "reparam"], [0.5, "ss2d"]]},
        deviates=f"{ENCODER_ONLY}; which half is which, and how both meet, is inferred from the fragment; {OWN_PLAN}",
    ),
    System(
        "mamba_cafu",
        "MambaCAFU",
        "papers",
        8,
        "A convolutional, a transformer and a Mamba encoder side by side, joined by gates that each sets for others.",
        "code",
        3,
        code="faresbougourzi/MambaCAFU",
        axes={
            "branches": [[1.0, "conv"], [1.0, "attention"], [1.0, "ss2d"]],
            "fusion": "co_attention",
            "attention_window": 7,
        },
        deviates=(
            f"{ENCODER_ONLY}; three branches in each block rather than three encoders; attention within windows of "
            f"seven; {OWN_PLAN}"
        ),
    ),
    System(
        "gl_mambanet",
        "Gl-MambaNet",
        "papers",
        10,
        "A global branch of scans and a local branch of convolutions, joined in each stage.",
        "fragment",
        1,
        axes={"branches": [[1.0, "conv"], [1.0, "ss2d"]], "fusion": "add"},
        deviates=f"{ENCODER_ONLY}; the fragment only names both branches: added up; {OWN_PLAN}",
    ),
    System(
        "pgm_unet",
        "PGM-UNet",
        "papers",
        15,
        "A prompt made from the input image is added to what the scan reads, beside a branch of convolutions.",
        "abstract",
        2,
        waits_for="a prompt that is made from the image; branches at full width side by side",
    ),
    System(
        "hmt_unet",
        "HMT-UNet, HTM-UNet",
        "papers",
        19,
        "MambaVision as a U: two stages of convolutions, then windows with scans first and attention last.",
        "code",
        2,
        paper="Zhang et al., HMT-UNet, 2024",
        code="simzhangbest/HMT-Unet",
        waits_for="a scan whose gate is put beside it; blocks of two kinds in one stage; channel mixer mlp",
    ),
    System(
        "vmaxl_unet",
        "VMAXL-UNet",
        "papers",
        20,
        "Blocks of the selective scan and of Vision LSTM in turn.",
        "abstract",
        2,
        waits_for="mixer mlstm; blocks of two kinds in one stage",
    ),
    System(
        "inception_mamba",
        "InceptionMamba",
        "papers",
        23,
        "Half of the channels pass, an eighth each goes through 3×3, 1×11 and 11×1 depth-wise convolutions and a "
        "scan; a gated MLP of convolutions.",
        "code",
        2,
        paper="InceptionMamba, 2025",
        code="Daniyanaj/InceptionMamba",
        axes={
            "branches": [
                [0.375, "identity"],
                [0.5, {"inception": {"kernel_size": 11}}],
                [0.125, {"ss2d": {"scan_directions": "rows"}}],
            ],
            "fusion": "concat",
        },
        deviates=(
            f"{ENCODER_ONLY}; without the MLP; its pair of low and high cues is a mixer of its own here "
            f"(pooled_low_high); {OWN_PLAN}"
        ),
    ),
    System(
        "inception_mamba_code",
        "InceptionMamba as released",
        "papers",
        23,
        "Its tokens are runs of pixels of one channel, since the map is reshaped without moving channels last.",
        "code",
        2,
        code="Daniyanaj/InceptionMamba",
        waits_for="a scan over pixels of one channel at a time",
        form_of="inception_mamba",
    ),
    System(
        "hc_mamba",
        "HC-Mamba",
        "papers",
        24,
        "Depth-wise separable convolutions, dilated more in each stage, beside the scan.",
        "abstract",
        1,
        paper="Xu, HC-Mamba, 2024 (arXiv 2405.05007)",
        axes={
            "branches": [[0.5, {"depthwise": {"kernel_size": 3}}], [0.5, "ss2d"]],
            "dilation": [1, 2, 3, 4],
        },
        deviates=f"{ENCODER_ONLY}; {OWN_PLAN}",
    ),
    System(
        "mamba_vesselnet_pp",
        "MambaVesselNet++",
        "papers",
        25,
        "Convolutions in the shallow stages, scans in both directions in the deep ones.",
        "code",
        1,
        paper="MambaVesselNet++, 2025",
        code="CC0117/MambaVesselNet",
        axes={
            "branches": [[[1.0, "conv"]], [[1.0, "conv"]], [[1.0, "ss2d"]], [[1.0, "ss2d"]]],
            "scan_directions": "bidirectional",
        },
        deviates=f"{ENCODER_ONLY}; {OWN_PLAN}",
    ),
    System(
        "hym_unet",
        "HyM-UNet",
        "papers",
        26,
        "Convolutions in the shallow stages, the four-way scan in the deep ones; the deep map gates the skips.",
        "abstract",
        3,
        axes={"branches": [[[1.0, "conv"]], [[1.0, "conv"]], [[1.0, "ss2d"]], [[1.0, "ss2d"]]]},
        deviates=f"{ENCODER_ONLY}, hence without its gated skips; {OWN_PLAN}",
    ),
    System(
        "kmp_unet",
        "KMP-UNet",
        "papers",
        27,
        "Scan and KAN side by side, each at full width, joined by a gate.",
        "abstract",
        2,
        waits_for="branches at full width side by side; mixer or channel mixer kan; fusion gated",
    ),
    System(
        "cns_unet",
        "CNS-UNet",
        "papers",
        28,
        "A block of convolution and state space model.",
        "fragment",
        1,
        axes={"fusion": "add"},
        deviates=(
            f"{ENCODER_ONLY}; the fragment says only that convolution and state space model are combined: halves "
            f"of channels, added up; {OWN_PLAN}"
        ),
    ),
    System(
        "srl_unet",
        "SRL-UNet",
        "papers",
        43,
        "A residual U-Net with gates on skips, the selective scan after the convolutions of a block.",
        "fragment",
        1,
        axes={"cascade": True},
        deviates=(
            f"{ENCODER_ONLY}; the scan's half of the channels also reads what the convolutions made: the fragment "
            f"names scans after residual convolutions; {OWN_PLAN}"
        ),
    ),
    System(
        "hc_ss2d",
        "HC-SS2D",
        "papers",
        88,
        "A module of convolutions and the selective scan.",
        "fragment",
        1,
        axes={"fusion": "concat"},
        deviates=f"{ENCODER_ONLY}; its title is missing and the fragment only names the module: halves of channels "
        f"side by side; {OWN_PLAN}",
    ),
)
