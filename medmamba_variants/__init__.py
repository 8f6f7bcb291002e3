"""MedMamba as a design space: a builder with every choice as an axis, costs of variants, and the 2-D selective scan.

    config = VariantConfig.from_dict({"split_ratio": 0.25}, base="medmamba_t")
    model = build_model(config, num_classes=6, in_channels=3)
    count_cost(config, image_size=224, num_classes=6, in_channels=3).macs

`PRESETS` names variants, `AXES` declares every axis; `ss2d_scan` is the scan along any path that `scan_path`,
`window_path` or `custom_path` makes, `selective_scan` the same kernels in mamba-ssm's layout, and `use_backend` sends
the scans of a block of code through one backend. `SYSTEMS` maps published systems to the variants that stand for them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
