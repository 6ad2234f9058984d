"""For benchmarks: a peer, upstream's method of applying adapters, restated by us from its description in our design.

No code of upstream's is here. Forward hooks repeat A and B for every token, and logits are computed for all tokens.
Hypernetwork, loss and random numbers are ours, so its losses must equal ours. A and B are in the base's dtype, which is
kinder to it than upstream's fp32.

Axes: B rows, T tokens of the longest row, K labels, N adapters (= B), R rank, I in_features, O out_features.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from t2l.data.collate import SftBatch
from t2l.lora import LoraWeights
from t2l.text.encoder import TextFeatures
from t2l.train.losses import Losses, LossInputs, through_base_losses
from t2l.train.step import SftModule

IGNORED = -100
"""The label of a position that predicts none."""


class PerTokenModule(SftModule):
    """The job's module, but adapters act by hooks, token by token. Its `PerRowLora` gets none: it is the bare base."""

    def forward(self, batch: SftBatch, features: TextFeatures) -> Losses:
        model = self.base.model
        with torch.autocast(model.device.type, model.dtype, enabled=model.dtype == torch.bfloat16):
            weights = self.model(features.states_N_T_D, features.mask_N_T)
        with per_token_hooks(model, weights.to(dtype=model.dtype)):
            logits_B_T_V = model(inputs_embeds=self._embed(batch), use_cache=False).logits
        inputs = LossInputs(
            logits_K_V=logits_B_T_V.flatten(0, 1),  # here every token is a label position, though most are ignored
            label_ids_K=spread(batch, batch.label_ids_K, IGNORED).flatten(),
            label_weights_K=spread(batch, batch.label_weights_K, 0.0).flatten(),
            weights=weights,
            adapters_in_step=batch.rows_in_step,
        )
        return through_base_losses(inputs, self._label_smoothing, self._l2_generated)


@contextmanager
def per_token_hooks(model: PreTrainedModel, weights: LoraWeights) -> Iterator[None]:
    spec = weights.spec
    with ExitStack() as stack:
        for module in spec.modules:
            for layer in range(spec.num_layers):
                A_NRI, B_NOR = weights.A[module.name][:, layer], weights.B[module.name][:, layer]
                hook = partial(add_per_token, A_NRI=A_NRI, B_NOR=B_NOR, scaling=spec.scaling, dropout=spec.dropout)
                handle = model.get_submodule(spec.module_key(layer, module)).register_forward_hook(hook)
                stack.callback(handle.remove)
        yield


def add_per_token(
    layer: nn.Module,
    inputs: tuple[Tensor],
    y_B_T_O: Tensor,
    *,
    A_NRI: Tensor,
    B_NOR: Tensor,
    scaling: float,
    dropout: float,
) -> Tensor:
    """y + s B (A x) with a copy of A and B for each of the B * T tokens."""
    x_B_T_I = F.dropout(inputs[0], dropout, layer.training)
    width = x_B_T_I.shape[1]
    A_BT_R_I, B_BT_O_R = A_NRI.repeat_interleave(width, 0), B_NOR.repeat_interleave(width, 0)
    h_BT_R_1 = A_BT_R_I @ x_B_T_I.flatten(0, 1)[..., None]
    return y_B_T_O + scaling * (B_BT_O_R @ h_BT_R_1).view_as(y_B_T_O)


def spread(batch: SftBatch, values_K: Tensor, fill: float) -> Tensor:
    """[B, T]: the values at the positions that predict labels, `fill` elsewhere."""
    flat_BT = torch.full_like(batch.input_ids_B_T, fill, dtype=values_K.dtype).flatten()
    return flat_BT.index_copy(0, batch.label_positions_K, values_K).view_as(batch.input_ids_B_T)
