"""Reconstruction: generated adapters are held against trained ones (paper, section 3.1). No LLM runs in the step.

Legend: n adapters of a batch, N adapters of the library, l layers, r rank, i in_features, o out_features.

l1 compares A and B themselves, as the paper does, on z-scores: that asks for more than equal behaviour, since
(B Q, Q^-1 A) does what (B, A) does; trained from one initialisation, though, a library's adapters mostly agree on Q.
delta compares the products B A in their factored form (t2l/lora/distance.py), as a share of the library's own mean
square: 1 is what the null adapter scores.
"""

import torch
from torch import Tensor

from t2l.config import ReconConfig
from t2l.data.recon_steps import ReconBatch
from t2l.hypernet.text_to_lora import TextToLoraModel
from t2l.lora.distance import squared_distances, squared_norms
from t2l.lora.weights import LoraWeights
from t2l.text.encoder import TextFeatures
from t2l.train.losses import Losses
from t2l.train.module import TrainModule

_LEAST_STD = 1e-6
"""Weights that differ less between adapters take the mean: their z-scores would be noise."""


class ReconModule(TrainModule):
    """The trained model and the adapters [N] that it shall yield, in the order of the training tasks.

    A fresh model predicts z-scores, if the config says so: their mean and std become part of it.
    """

    def __init__(self, library: LoraWeights, model: TextToLoraModel, config: ReconConfig) -> None:
        super().__init__()
        self.model = model
        self._l1 = config.distance == "l1"
        if config.zscore:
            model.hypernet.set_zscore(library.mean(), _std(library))
        self._normalised = self._l1 and config.zscore
        self._targets = model.hypernet.normalise(library) if self._normalised else library
        self._mean_square = squared_norms(library).mean()

    @property
    def device(self) -> torch.device:
        return self._targets.device

    def forward(self, batch: ReconBatch, features: TextFeatures) -> Losses:
        """Losses of n adapters made from n descriptions."""
        embedding_N_E = self.model.embed(features.states_N_T_D, features.mask_N_T)
        weights = self.model.hypernet(embedding_N_E, normalised=self._normalised)
        targets = self._targets.select(batch.adapter_index_B)
        share = len(weights) / batch.adapters_in_step
        if self._l1:
            fit = l1_distance(weights, targets) * share
        else:
            fit = squared_distances(weights, targets).mean() / self._mean_square * share
        return Losses(fit, fit.detach(), torch.zeros_like(fit))


def l1_distance(weights: LoraWeights, targets: LoraWeights) -> Tensor:
    """mean |A| / 2 + mean |B| / 2 of the difference, averaged over target modules."""
    difference = weights - targets
    return torch.stack([tensor.abs().mean() for tensor in difference.tensors()]).mean()


def _std(library: LoraWeights) -> LoraWeights:
    """Standard deviation of each weight over the library [1]."""
    std = library.map(lambda tensor: tensor.std(0, correction=0, keepdim=True))
    return std.map(lambda tensor: torch.where(tensor > _LEAST_STD, tensor, 0))
