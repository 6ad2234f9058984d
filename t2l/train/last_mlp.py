"""The last layer's MLP, computed where its states are read: at label positions, a few tokens of each row.

Axes: B rows, T tokens, H hidden size, K places in B * T.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from t2l.lora.apply import PerRowLora, RowLoraLinear


class MlpAt(nn.Module):
    """An MLP whose output is zero but at some places."""

    def __init__(self, mlp: nn.Module, place_K: Tensor) -> None:
        super().__init__()
        self.mlp, self.place_K = mlp, place_K

    def forward(self, hidden_B_T_H: Tensor) -> Tensor:
        hidden_BT_H = hidden_B_T_H.flatten(0, 1)
        out_K_H = self.mlp(hidden_BT_H.index_select(0, self.place_K)[None])[0]
        return hidden_BT_H.new_zeros(hidden_BT_H.shape).index_copy(0, self.place_K, out_K_H).view_as(hidden_B_T_H)


@contextmanager
def last_mlp_at(base: PerRowLora, place_K: Tensor) -> Iterator[None]:
    """In this context, if it can be: not where adapters act in it or a backward pass would run it again."""
    last = base.decoder_layers[-1]
    mlp = getattr(last, "mlp", None)
    run_again = getattr(last, "gradient_checkpointing", False)
    if mlp is None or run_again or any(isinstance(module, RowLoraLinear) for module in mlp.modules()):
        yield
        return
    last.mlp = MlpAt(mlp, place_K)
    try:
        yield
    finally:
        last.mlp = mlp
