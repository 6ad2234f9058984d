"""The trained part of t2l as one module: reader, then hypernetwork.

Axes: N descriptions, T tokens, D features, E embedding.
"""

from torch import Tensor, nn

from t2l.config import ReaderConfig, RunConfig
from t2l.hypernet.model import HyperNetwork
from t2l.hypernet.reader import SentenceReader, TokenReader
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights


class TextToLoraModel(nn.Module):
    """Features of descriptions -> adapters. Everything here is trained; encoder and base model are not part of it."""

    def __init__(self, reader: SentenceReader | TokenReader, hypernet: HyperNetwork) -> None:
        super().__init__()
        self.reader, self.hypernet = reader, hypernet

    def embed(self, states_N_T_D: Tensor, mask_N_T: Tensor) -> Tensor:
        """Task embeddings [N, E]."""
        return self.reader(states_N_T_D, mask_N_T)

    def forward(self, states_N_T_D: Tensor, mask_N_T: Tensor) -> LoraWeights:
        return self.hypernet(self.embed(states_N_T_D, mask_N_T))


def build_reader(config: ReaderConfig | None, feature_dim: int) -> SentenceReader | TokenReader:
    return SentenceReader(feature_dim) if config is None else TokenReader(feature_dim, config)


def build_model(config: RunConfig, spec: LoraSpec, feature_dim: int) -> TextToLoraModel:
    """A fresh model for a run; deterministic under torch.manual_seed."""
    reader = build_reader(config.reader, feature_dim)
    return TextToLoraModel(reader, HyperNetwork(spec, config.hypernet, reader.embedding_dim))
