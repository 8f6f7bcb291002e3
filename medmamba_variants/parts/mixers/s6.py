"""The parameters of the selective state space model (S6) of a scan layer, and what they make of its input.

Symbols, with their place in Gu & Dao, "Mamba" (2023), and Liu et al., "VMamba" (2024):

    d_inner  E · width, the channels inside the layer                            Mamba, section 3.4
    N        d_state, the size of the state of each channel                      Mamba, section 2
    R        dt_rank, the rank of the step-size projection                       Mamba, section 3.6
    K        the number of scan directions, each with its own parameters         VMamba, section 4.2 (cross-scan)
    delta    step size of every position and channel, before bias and softplus   Mamba, algorithm 2
    A        (K, d_inner, N) negative rates of decay, kept as log(−A)             Mamba, section 3.6 (S4D-real)
    B, C     (batch, length, K, N) input and output weights of the state         Mamba, algorithm 2
    D        (K, d_inner) skip                                                   Mamba, section 2
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmamba_variants.design.scan_mixer import SS2D
from medmamba_variants.parts.init import spread_steps
from medmamba_variants.parts.mixers.wiring import Wired

# Bounds of −A at the start where it is uniform (Mamba-2's code).
A_MIN, A_MAX = 1.0, 16.0


@dataclass(frozen=True)
class Factors:
    """What a scan takes beside its input, for all directions: see `ss2d_scan`."""

    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    delta_bias: Tensor
    delta_weight: Tensor


class S6(Wired):
    """The parameters of K selective scans around which a layer is wired.

    Parameters carry the published names and shapes. Their leading axis has an entry for each direction, or for each
    set that some of them share. What is not selective is a constant: `Bs` and `Cs` (sets, N), and of the step size the
    bias alone.
    """

    set_of: Tensor

    def __init__(self, channels: int, component: SS2D) -> None:
        super().__init__(channels, component, component.inner(channels))
        self.component = component
        self.d_state = component.d_state
        self.dt_rank = component.rank(channels)
        self.sets = sets = component.sets
        self.count = len(component.directions)
        selected = component.selected

        if rows := component.projected(channels):
            self.x_proj_weight = nn.Parameter(torch.empty(sets, rows, self.d_inner))
        if "delta" in selected:
            self.dt_projs_weight = nn.Parameter(torch.empty(sets, self.d_inner, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(sets, self.d_inner))
        self.A_logs = nn.Parameter(torch.empty(sets * self.d_inner, self.d_state))
        if "b" not in selected:
            self.Bs = nn.Parameter(torch.empty(sets, self.d_state))
        if "c" not in selected:
            self.Cs = nn.Parameter(torch.empty(sets, self.d_state))
        self.Ds = nn.Parameter(torch.empty(sets * self.d_inner))
        if component.direction_embedding:
            self.direction_embedding = nn.Parameter(torch.empty(self.count, self.d_state))
        if 1 < max(component.set_of) + 1 < self.count:
            self.register_buffer("set_of", torch.tensor(component.set_of), persistent=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        if self.A_logs.is_meta:
            return
        component, selected = self.component, self.component.selected
        if selected:
            nn.init.uniform_(self.x_proj_weight, -(self.d_inner**-0.5), self.d_inner**-0.5)
        if "delta" in selected:
            # Keeps the variance of delta independent of its rank.
            bound = self.dt_rank**-0.5
            if component.dt_init == "random":
                nn.init.uniform_(self.dt_projs_weight, -bound, bound)
            else:
                nn.init.constant_(self.dt_projs_weight, bound)
        spread_steps(self.dt_projs_bias, component.dt_min, component.dt_max)
        if component.a_init == "s4d_real":
            # A = −1, −2, …, −N for every channel.
            self.A_logs.copy_(torch.arange(1, self.d_state + 1, dtype=torch.float32, device=self.A_logs.device).log())
        elif component.a_init == "s4d_lin":
            nn.init.constant_(self.A_logs, 0.5).log_()
        elif component.a_init == "random":
            nn.init.normal_(self.A_logs)
        else:
            nn.init.uniform_(self.A_logs, A_MIN, A_MAX).log_()
        # S4D, section 4: B of ones, C standard normal.
        if "b" not in selected:
            nn.init.ones_(self.Bs)
        if "c" not in selected:
            nn.init.normal_(self.Cs)
        nn.init.ones_(self.Ds)
        if component.direction_embedding:
            nn.init.trunc_normal_(self.direction_embedding, std=0.02)

    def factors(self, tokens: Tensor) -> Factors:
        """What the scans take beside tokens (batch, length, d_inner), which are in spatial order."""
        selected, R, N = self.component.selected, self.dt_rank, self.d_state
        # In the state's precision: float32 for half precision, while float64 stays.
        A = -torch.exp(self.A_logs.to(torch.promote_types(self.A_logs.dtype, torch.float32)))
        parts = []
        if selected:
            # One product serves all directions: (batch, length, sets, R + 2N), if all is selective.
            projected = F.linear(tokens, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (self.sets, -1))
            sizes = [R] * ("delta" in selected) + [N] * len(selected & {"b", "c"})
            parts = list(self._for_directions(projected, 2).split(sizes, dim=-1))
        if "delta" in selected:
            delta = parts.pop(0)
            # Under autocast the factors have the same dtype, as in any other product.
            weight = self._for_directions(self.dt_projs_weight.to(delta.dtype), 0)
        else:
            # The bias alone: the scan takes its step size as a product, here of rank one and of zeros.
            delta = tokens.new_zeros(*tokens.shape[:2], self.count, 1)
            weight = tokens.new_zeros(self.count, self.d_inner, 1)
        B = parts.pop(0) if "b" in selected else self._constant(self.Bs, tokens)
        C = parts.pop(0) if "c" in selected else self._constant(self.Cs, tokens)
        if self.component.direction_embedding:
            B = B + self.direction_embedding.to(B.dtype)
        return Factors(
            delta,
            self._for_directions(A.view(self.sets, self.d_inner, N), 0),
            B,
            C,
            self._for_directions(self.Ds.view(self.sets, self.d_inner), 0),
            self._for_directions(self.dt_projs_bias, 0),
            weight,
        )

    def _constant(self, values: Tensor, tokens: Tensor) -> Tensor:
        """A constant (sets, N) at every position: (batch, length, K, N)."""
        return self._for_directions(values, 0).expand(*tokens.shape[:2], -1, -1)

    def _for_directions(self, values: Tensor, axis: int) -> Tensor:
        """Values of sets along an axis, as those of the directions that use them."""
        if self.sets == self.count:
            return values
        if self.sets == 1:
            return values.expand(*[self.count if each == axis else -1 for each in range(values.dim())])
        return values.index_select(axis, self.set_of)
