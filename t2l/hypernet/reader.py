"""Readers: from the states of a description's tokens to one task embedding.

Axes: N texts, T tokens, D features of the frozen encoder, W width of the reader, Q queries, E embedding.
"""

import torch
from torch import Tensor, nn

from t2l.config import ReaderConfig


class SentenceReader(nn.Module):
    """For encoders that pool themselves (T = 1): passes the vector on. No parameters."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.embedding_dim = feature_dim

    def forward(self, states_N_T_D: Tensor, mask_N_T: Tensor) -> Tensor:
        return states_N_T_D[:, 0]


class TokenReader(nn.Module):
    """A small transformer over the frozen states, then Q learned queries that each pick out one side of the task.

    The queries' answers, side by side, are the embedding [N, E = Q * W]: a description of two steps needs a place for
    each, which one mean over tokens does not have.
    """

    def __init__(self, feature_dim: int, config: ReaderConfig) -> None:
        super().__init__()
        width = config.width
        self.embedding_dim = config.num_queries * width
        self.project = nn.Sequential(nn.Linear(feature_dim, width), nn.LayerNorm(width))
        layer = nn.TransformerEncoderLayer(
            width, config.num_heads, 4 * width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)
        self.queries = nn.Parameter(torch.randn(config.num_queries, width) * width**-0.5)
        self.attend = nn.MultiheadAttention(width, config.num_heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, states_N_T_D: Tensor, mask_N_T: Tensor) -> Tensor:
        """States [N, T, D] and mask [N, T] (True on real tokens) -> embeddings [N, Q * W]."""
        padding = ~mask_N_T
        tokens = self.layers(self.project(states_N_T_D.to(self.queries.dtype)), src_key_padding_mask=padding)
        queries = self.queries.expand(len(tokens), -1, -1)
        found, _ = self.attend(queries, tokens, tokens, key_padding_mask=padding, need_weights=False)
        return self.norm(found).flatten(1)
