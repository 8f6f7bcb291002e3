"""Stand-ins for mamba-ssm, causal-conv1d and VMamba's kernels: their names, with this suite's scan behind them.

from medmamba_variants.drop_in.standing_in import as_mamba_ssm

with as_mamba_ssm():
    from mamba_ssm import Mamba
"""
