"""LoRA on rows that stand one after the other without padding, each token by its own adapter: y + s B (A dropout(x)).

Two operators with gradients, `packed_down` to a rank's few numbers and `packed_up` from them.

Legend: T tokens, N adapters, R rank, I in_features, O out_features. An adapter's tokens stand together, the first
adapter's first.
"""

from typing import Any

import torch
from torch import Tensor

from t2l.kernels.lora_products import Dropout, go_down, go_up, sum_up


@torch.library.custom_op("t2l::packed_down", mutates_args=())
def _op_down(
    x_T_I: Tensor, A_NRI: Tensor, adapter_T: Tensor, start_N1: Tensor, seed: Tensor, factor: float, p: float
) -> Tensor:
    return go_down(x_T_I.contiguous(), [A_NRI], adapter_T, factor, Dropout(seed, p))


@torch.library.custom_op("t2l::packed_down_backward", mutates_args=())
def _down_gradients(
    dh_T_R: Tensor,
    x_T_I: Tensor,
    A_NRI: Tensor,
    adapter_T: Tensor,
    start_N1: Tensor,
    seed: Tensor,
    factor: float,
    p: float,
) -> tuple[Tensor, Tensor]:
    """Of x and A."""
    dropout, dh_T_R = Dropout(seed, p), _with_rows(dh_T_R)
    dx_T_I = go_up(dh_T_R, A_NRI, adapter_T, factor, dropout)
    return dx_T_I, sum_up(dh_T_R, x_T_I.contiguous(), start_N1, factor, dropout)


@torch.library.custom_op("t2l::packed_up", mutates_args=())
def _op_up(y_T_O: Tensor, h_T_R: Tensor, B_NRO: Tensor, adapter_T: Tensor, start_N1: Tensor) -> Tensor:
    return go_up(_with_rows(h_T_R), B_NRO, adapter_T, 1.0, Dropout(start_N1, 0), y_T_O.contiguous())


@torch.library.custom_op("t2l::packed_up_backward", mutates_args=())
def _up_gradients(
    dy_T_O: Tensor, h_T_R: Tensor, B_NRO: Tensor, adapter_T: Tensor, start_N1: Tensor
) -> tuple[Tensor, Tensor]:
    """Of h and B; that of y is dy."""
    none, dy_T_O = Dropout(start_N1, 0), dy_T_O.contiguous()
    dh_T_R = go_down(dy_T_O, [B_NRO], adapter_T, 1.0, none)
    return dh_T_R, sum_up(_with_rows(h_T_R), dy_T_O, start_N1, 1.0, none)


def _with_rows(h_T_R: Tensor) -> Tensor:
    """Perhaps a part of wider rows, but each of its own in one piece."""
    return h_T_R if h_T_R.stride(1) == 1 else h_T_R.contiguous()


def _keep_down(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.factor, ctx.p = inputs
    ctx.save_for_backward(*tensors)


def _backward_down(ctx: Any, dh_T_R: Tensor) -> tuple[Tensor | None, ...]:
    return *_down_gradients(dh_T_R, *ctx.saved_tensors, ctx.factor, ctx.p), None, None, None, None, None


def _keep_up(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward_up(ctx: Any, dy_T_O: Tensor) -> tuple[Tensor | None, ...]:
    return dy_T_O, *_up_gradients(dy_T_O, *ctx.saved_tensors), None, None


# `len` would be a constant to torch.compile.
_op_down.register_fake(lambda x_T_I, A_NRI, *_: x_T_I.new_empty(x_T_I.shape[0], A_NRI.shape[1]))
_op_up.register_fake(lambda y_T_O, *_: y_T_O.new_empty(y_T_O.shape))
_down_gradients.register_fake(
    lambda dh_T_R, x_T_I, A_NRI, *_: (x_T_I.new_empty(x_T_I.shape), A_NRI.new_empty(A_NRI.shape))
)
_up_gradients.register_fake(
    lambda dy_T_O, h_T_R, B_NRO, *_: (h_T_R.new_empty(h_T_R.shape), B_NRO.new_empty(B_NRO.shape))
)
_op_down.register_autograd(_backward_down, setup_context=_keep_down)
_op_up.register_autograd(_backward_up, setup_context=_keep_up)


def packed_down(
    x_T_I: Tensor, A_NRI: Tensor, adapter_T: Tensor, start_N1: Tensor, scaling: float, p: float = 0.0
) -> Tensor:
    """[T, R]: s A dropout(x), by adapter adapter_T (int32) of each token; an operator, for torch.compile.

    start_N1: where each adapter's tokens start (int32), and the end. p: of dropout, drawn by torch's generator.
    """
    low, high = -(1 << 31), 1 << 31
    seed = torch.randint(low, high, (1,), dtype=torch.int32, device=x_T_I.device) if p else start_N1[:1]
    return _op_down(x_T_I, A_NRI, adapter_T, start_N1, seed, scaling, p)


def packed_up(y_T_O: Tensor, h_T_R: Tensor, B_NOR: Tensor, adapter_T: Tensor, start_N1: Tensor) -> Tensor:
    """[T, O]: y + B h, by the adapter of each token, as `packed_down`."""
    return _op_up(y_T_O, h_T_R, B_NOR.mT, adapter_T, start_N1)
