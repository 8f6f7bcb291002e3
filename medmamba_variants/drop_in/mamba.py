"""Mamba's layer by mamba-ssm's name, with its settings and the names of its parameters, so that checkpoints fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from medmamba_variants.drop_in.interface import mamba_inner_fn
from medmamba_variants.parts.init import spread_steps


class Mamba(nn.Module):
    """Mamba's layer over sequences (batch, length, d_model); keeps the shape (Gu & Dao 2023, figure 3).

    `use_fast_path` and `layer_idx` are taken, as callers give them, and have no effect: there is one path, and no
    step-by-step generation. Raises ValueError for a state of an earlier call.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dt_init not in ("random", "constant"):
            raise ValueError(f"dt_init must be random or constant, got {dt_init!r}")
        inner = int(expand * d_model)
        rank = math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank)
        where = {"device": device, "dtype": dtype}
        self.d_model, self.d_state, self.d_inner, self.dt_rank = d_model, d_state, inner, rank
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias, device=device, dtype=dtype)
        self.conv1d = nn.Conv1d(
            inner, inner, d_conv, groups=inner, padding=d_conv - 1, bias=conv_bias, device=device, dtype=dtype
        )
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False, device=device, dtype=dtype)
        self.dt_proj = nn.Linear(rank, inner, device=device, dtype=dtype)
        # Section 3.6: the projection keeps the variance, and its offset spreads the step sizes.
        bound = rank**-0.5 * dt_scale
        with torch.no_grad():
            if dt_init == "random":
                self.dt_proj.weight.uniform_(-bound, bound)
            else:
                self.dt_proj.weight.fill_(bound)
        spread_steps(self.dt_proj.bias, max(dt_min, dt_init_floor), max(dt_max, dt_init_floor))
        # As S4D-Real has it, in 32 bits whatever the rest.
        rates = torch.arange(1, d_state + 1, dtype=torch.float32, device=device)
        self.A_log = nn.Parameter(rates.log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner, device=device))
        self.out_proj = nn.Linear(inner, d_model, bias=bias, **where)
        for parameter, mark in ((self.A_log, "_no_weight_decay"), (self.D, "_no_weight_decay")):
            setattr(parameter, mark, True)
        # Some initialise every linear layer anew, but for those offsets that say no.
        self.dt_proj.bias._no_reinit = True  # type: ignore[attr-defined]

    def forward(self, hidden_states: Tensor, inference_params: object = None) -> Tensor:
        if inference_params is not None:
            raise ValueError("inference_params must be None in this stand-in for Mamba, which keeps no states")
        xz = self.in_proj(hidden_states).transpose(1, 2)
        return mamba_inner_fn(
            xz,
            self.conv1d.weight,
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.out_proj.weight,
            self.out_proj.bias,
            -torch.exp(self.A_log.float()),
            D=self.D.float(),
            delta_bias=self.dt_proj.bias.float(),
        )
