"""Recurrent networks as a branch operator: torch's LSTM, GRU and RNN on maps (batch, height, width, channels)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from medmamba_variants.design.sequences import recurrent as design
from medmamba_variants.parts.init import linear

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class RecurrentBranch(nn.Module):
    """Layer norm, a recurrent network over sequences of positions, a linear map, drop path.

    A sequence is the whole map, row by row, or (cross) every row and every column by itself, read by one set of
    weights, whose outputs lie side by side. Sequencer (Tatsunami & Taki 2022) has two sets and a quarter of the units.
    """

    def __init__(self, channels: int, component: design.LSTM | design.GRU | design.RNN, drop_path: float) -> None:
        super().__init__()
        self.kind, self.both = component.word, component.bidirectional
        self.cross = component.rnn_sweep == "cross"
        self.norm = nn.LayerNorm(channels)
        # Its parameters alone: a compiler cannot see torch's modules.
        network = KINDS[self.kind](channels, component.units(channels), bidirectional=component.bidirectional)
        self.network = nn.ParameterList(network.parameters())
        self.mixing = linear(component.read(channels), channels, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        if self.cross:
            columns = (
                self._read(normed.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), x.shape[2])).transpose(1, 2)
            )
            y = torch.cat([self._read(normed.flatten(0, 1)).view_as(columns), columns], -1)
        else:
            y = self._read(normed.flatten(1, 2)).unflatten(1, x.shape[1:3])
        return self.drop_path(self.mixing(y))

    def _read(self, sequences: Tensor) -> Tensor:
        parameters = list(self.network)
        # The meta device, on which costs are counted, knows no autocast; torch's networks want a single dtype.
        with torch.autocast("cpu" if sequences.is_meta else sequences.device.type, enabled=False):
            sequences = sequences.to(parameters[0].dtype)
            if torch.compiler.is_compiling() or sequences.is_meta or torch._C._len_torch_dispatch_stack() > 0:
                read: Tensor = torch.ops.medmamba.recurrent(sequences, parameters, self.kind, self.both)
                return read
            return run_network(sequences, parameters, self.kind, self.both)


def run_network(sequences: Tensor, parameters: Sequence[Tensor], kind: str, both: bool) -> Tensor:
    """Outputs (batch, steps, units or twice as many) of a network over sequences (batch, steps, channels).

    `parameters` are those of torch's module in their order; states start at zero, `both` reads from the end, too.
    """
    units = parameters[1].shape[1]
    if sequences.numel() == 0:
        return sequences.new_zeros(*sequences.shape[:2], units * (2 if both else 1))
    start = sequences.new_zeros(2 if both else 1, len(sequences), units)
    # Offsets, layers, dropout, training, both senses, batch first.
    rest = (list(parameters), True, 1, 0.0, False, both, True)
    if kind == "lstm":
        result: Tensor = torch.lstm(sequences, [start, start], *rest)[0]
    else:
        result = {"gru": torch.gru, "rnn": torch.rnn_tanh}[kind](sequences, start, *rest)[0]
    return result


# What is traced or counted sees one operator: torch's networks differ from device to device, and on some are loops.
@torch.library.custom_op("medmamba::recurrent", mutates_args=())
def _operator(sequences: Tensor, parameters: Sequence[Tensor], kind: str, both: bool) -> Tensor:
    return run_network(sequences, parameters, kind, both).contiguous()


@torch.library.custom_op("medmamba::recurrent_backward", mutates_args=())
def _backward_operator(
    dy: Tensor, sequences: Tensor, parameters: Sequence[Tensor], kind: str, both: bool
) -> list[Tensor]:
    def gradients() -> list[Tensor]:
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in (sequences, *parameters)]
            y = run_network(leaves[0], leaves[1:], kind, both)
            return [each.contiguous() for each in torch.autograd.grad(y, leaves, dy, materialize_grads=True)]

    # Inside an operator this thread's autograd is switched off, and modes may watch it: another thread is free of both.
    with ThreadPoolExecutor(max_workers=1) as other_thread:
        return other_thread.submit(gradients).result()


@_operator.register_fake
def _(sequences: Tensor, parameters: Sequence[Tensor], kind: str, both: bool) -> Tensor:
    return sequences.new_empty(*sequences.shape[:2], parameters[1].shape[1] * (2 if both else 1))


@_backward_operator.register_fake
def _(dy: Tensor, sequences: Tensor, parameters: Sequence[Tensor], kind: str, both: bool) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in (sequences, *parameters)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    sequences, parameters, kind, both = inputs
    ctx.save_for_backward(sequences, *parameters)
    ctx.rest = kind, both


def _operator_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    sequences, *parameters = ctx.saved_tensors
    first, *others = torch.ops.medmamba.recurrent_backward(dy, sequences, parameters, *ctx.rest)
    return first, others, None, None


_operator.register_autograd(_operator_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.medmamba.recurrent)
def recurrent_flops(
    sequences: tuple[int, ...], parameters: Sequence[tuple[int, ...]], kind: str, both: bool, out_shape: object = None
) -> int:
    """FLOPs of the operator: two for each multiply-add of the weights with inputs and states."""
    batch, steps, _ = sequences
    return 2 * batch * steps * sum(shape[0] * shape[1] for shape in parameters if len(shape) == 2)


@register_flop_formula(torch.ops.medmamba.recurrent_backward)
def recurrent_backward_flops(
    dy: tuple[int, ...], sequences: tuple[int, ...], parameters: Sequence[tuple[int, ...]], kind: str, both: bool,
    out_shape: object = None,
) -> int:  # fmt: skip
    """FLOPs of the backward operator: twice the forward's, as for matrix products."""
    return 2 * recurrent_flops(sequences, parameters, kind, both)
