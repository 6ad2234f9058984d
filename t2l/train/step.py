"""One training step's forward pass: descriptions -> adapters -> frozen LLM -> losses.

Axes: B rows, T tokens, H hidden size, K labels, V vocabulary, N texts, S tokens of a description, F features.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel, masking_utils

from t2l.config import ThroughBaseConfig
from t2l.data.collate import SftBatch
from t2l.errors import ConfigError
from t2l.hypernet.text_to_lora import TextToLoraModel
from t2l.lora.apply import PerRowLora
from t2l.lora.compiled import CompiledLayers
from t2l.lora.weights import LoraWeights
from t2l.text.encoder import TextFeatures
from t2l.train.last_mlp import last_mlp_at
from t2l.train.losses import Losses, LossInputs, SoftLabels, through_base_losses
from t2l.train.module import TrainModule
from t2l.train.packed import PackedRows, can_pack, without_masks


class SftModule(TrainModule):
    """The trained model together with the frozen base that its adapters are judged on, for SFT and distillation.

    The trained part is fp32 and computes in the base's dtype. Raises ConfigError for a base whose logits are more than
    its head's output (optionally soft-capped).
    """

    def __init__(self, base: PerRowLora, model: TextToLoraModel, config: ThroughBaseConfig) -> None:
        super().__init__()
        self.model = model
        self._neftune_alpha, self._l2_generated = config.neftune_alpha, config.l2_generated
        self._label_smoothing = getattr(config, "label_smoothing", 0.0)
        self._frozen = (base,)  # in a tuple, nn.Module does not register it
        self._compiled = CompiledLayers(base.decoder_layers if config.compile_base else [])
        check_head(base.model)
        if config.gradient_checkpointing:
            base.enable_activation_checkpointing()

    @property
    def base(self) -> PerRowLora:
        return self._frozen[0]

    @property
    def device(self) -> torch.device:
        return self.base.model.device

    def train(self, mode: bool = True) -> "SftModule":
        self.base.train(mode)
        return super().train(mode)

    def forward(self, batch: SftBatch, features: TextFeatures) -> Losses:
        """Losses of one batch, whose row b is served by the adapter of description b (B = N)."""
        dtype = self.base.model.dtype
        device_type = batch.input_ids_B_T.device.type
        with torch.autocast(device_type, dtype, enabled=dtype == torch.bfloat16):
            weights = self.model(features.states_N_T_D, features.mask_N_T)
        with self._compiled.running():
            logits_K_V = label_logits(self.base, weights, batch, self._embed(batch))
        inputs = LossInputs(
            logits_K_V=logits_K_V,
            label_ids_K=batch.label_ids_K,
            label_weights_K=batch.label_weights_K,
            weights=weights,
            adapters_in_step=batch.rows_in_step,
            teacher=_teacher_of(batch),
        )
        return through_base_losses(inputs, self._label_smoothing, self._l2_generated)

    def _embed(self, batch: SftBatch) -> Tensor:
        """Input embeddings [B, T, H], with NEFTune's noise in training (https://arxiv.org/abs/2310.05914)."""
        embeddings_B_T_H = embed(self.base, batch)
        if not self.training or not self._neftune_alpha:
            return embeddings_B_T_H
        size_B = batch.lengths_B * embeddings_B_T_H.shape[-1]
        scale_B = (self._neftune_alpha / size_B.sqrt()).to(embeddings_B_T_H.dtype)
        noise_B_T_H = torch.empty_like(embeddings_B_T_H).uniform_(-1, 1)
        return torch.addcmul(embeddings_B_T_H, noise_B_T_H, scale_B[:, None, None])


def _teacher_of(batch: SftBatch) -> SoftLabels | None:
    if batch.teacher_ids_K_J is None or batch.teacher_probs_K_J is None:
        return None
    return SoftLabels(batch.teacher_ids_K_J, batch.teacher_probs_K_J)


def label_logits(
    base: PerRowLora, weights: LoraWeights | None, batch: SftBatch, embeddings_B_T_H: Tensor | None = None
) -> Tensor:
    """Logits [K, V] of the adapted base (None: as it is) at label positions alone, without padding where that can be.

    Those of prompts would be the bulk of the memory. embeddings_B_T_H: if they are not just those of the tokens.
    """
    if embeddings_B_T_H is None:
        embeddings_B_T_H = embed(base, batch)
    inputs, segments, positions_K = {"inputs_embeds": embeddings_B_T_H}, None, batch.label_positions_K
    masks: AbstractContextManager[None] = nullcontext()
    if can_pack(base):
        masks = without_masks()
        rows = PackedRows.of(batch.lengths_B, embeddings_B_T_H.shape[1], batch.count)
        inputs, positions_K = rows.inputs(embeddings_B_T_H), rows.find(positions_K)
        segments = None if weights is None else rows.segments(len(weights))
    with base.adapters(weights, segments), last_mlp_at(base, positions_K), masks, _unchecked_rows():
        hidden = base.model.base_model(**inputs, use_cache=False).last_hidden_state
    return head(base.model, hidden.flatten(0, 1).index_select(0, positions_K))


def embed(base: PerRowLora, batch: SftBatch) -> Tensor:
    """Input embeddings [B, T, H]."""
    return base.model.get_input_embeddings()(batch.input_ids_B_T)


def head(model: PreTrainedModel, hidden_K_H: Tensor) -> Tensor:
    """Logits [K, V] of chosen states, soft-capped where the model does so (Gemma 2)."""
    output_embeddings = model.get_output_embeddings()
    assert output_embeddings is not None
    logits_K_V = output_embeddings(hidden_K_H)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits_K_V if cap is None else cap * torch.tanh(logits_K_V / cap)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set torch's generators (dropout, noise) for one step of one worker, so that a resumed run draws the same."""
    digest = hashlib.sha256(f"{seed}:{step}:{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8]) >> 1)


@torch.inference_mode()
def check_head(model: PreTrainedModel) -> None:
    """Some families also scale their logits: refuse those rather than train on others than they answer with.

    Raises ConfigError.
    """
    ids = torch.tensor([[0, 1]], device=model.device)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    if not torch.allclose(
        head(model, hidden[0]), model(input_ids=ids, use_cache=False).logits[0], rtol=0.05, atol=0.05
    ):
        raise ConfigError(
            f"{type(model).__name__} changes its logits after the head, which t2l does not know: choose another base"
        )


@contextmanager
def _unchecked_rows() -> Iterator[None]:
    """Spare transformers its check for several sequences packed into one row: it makes the host wait for the device,
    and would have a mask for what `packed.attention` is told otherwise."""
    check = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = check
