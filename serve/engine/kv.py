"""Keys and values of all rows, each row at a position of its own, and the masks that go with them.

Axes: R rows, N rows in use (the first N of R), T new tokens of a row, L positions, K key-value heads, D head size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, StaticLayer

from t2l.errors import ConfigError

_FULL, _SLIDING = "full_attention", "sliding_attention"


class RowCache(Cache):
    """transformers' cache over one fixed buffer [layers, 2, R, K, L, D], in which every row grows by itself.

    `write_prompts` or `write_tokens` says where the next forward pass writes. Rows share nothing, and positions that a
    row has not reached hold zeros: a mask does not hide the NaN of somebody else's broken adapter. Sliding layers keep
    all positions too: their masks hide the old ones.
    fused: attention writes new tokens itself, and reads no position that its row has not reached (fused_attention.py).
    """

    def __init__(self, model: PreTrainedModel, rows: int, max_length: int, fused: bool = False) -> None:
        config = model.config.get_text_config()
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        super().__init__(layers=[StaticLayer(max_length) for _ in range(layers)])
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        shape = (layers, 2, rows, getattr(config, "num_key_value_heads", None) or heads, max_length, size)
        self.buffer = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self._fused = fused
        self._position_N: Tensor | None = None

    def write_prompts(self, first: int, padding_N_T: Tensor) -> None:
        """Next, rows from `first` on read whole prompts, from position 0 on; True where there is no token."""
        self._first, self._padding_N_1_T_1 = first, padding_N_T[:, None, :, None]
        self._position_N = None

    def write_tokens(self, position_N: Tensor, longest: int) -> None:
        """Next, the first N rows read one token each, at these positions, all of them below `longest`."""
        self._position_N, self._longest = position_N, longest
        self._row_N = torch.arange(len(position_N), device=position_N.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values [N, K, T, D]; returns those to attend to."""
        if self._fused:
            return key_states, value_states
        keys_R_K_L_D, values_R_K_L_D = self.buffer[layer_idx]
        n, length = len(key_states), key_states.shape[2]
        if self._position_N is None:
            rows = slice(self._first, self._first + n)
            keys_R_K_L_D[rows, :, :length] = key_states.masked_fill(self._padding_N_1_T_1, 0)
            values_R_K_L_D[rows, :, :length] = value_states.masked_fill(self._padding_N_1_T_1, 0)
            return key_states, value_states
        keys_R_K_L_D[self._row_N, :, self._position_N] = key_states[:, :, 0]
        values_R_K_L_D[self._row_N, :, self._position_N] = value_states[:, :, 0]
        return keys_R_K_L_D[:n, :, : self._longest], values_R_K_L_D[:n, :, : self._longest]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one row to an empty one."""
        self.buffer[:, :, target, :, :length] = self.buffer[:, :, source, :, :length]

    def clear(self, row: int, length: int) -> None:
        """Empty a row that has come this far; fused attention never looks there."""
        if not self._fused:
            self.buffer[:, :, row, :, :length] = 0


class AttentionMasks:
    """Additive masks as a model takes them: one tensor, or one for each type of its layers.

    Raises ConfigError for a model with layers that are neither full nor sliding attention.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        layer_types: Sequence[str] | None = getattr(config, "layer_types", None)
        window: int | None = getattr(config, "sliding_window", None)
        self._named = layer_types is not None
        types = dict.fromkeys(layer_types or [_FULL if window is None else _SLIDING])
        if unknown := sorted(set(types) - {_FULL, _SLIDING}):
            raise ConfigError(f"the base model has layers of type {unknown}, which the engine cannot serve")
        self._windows = {name: window if name == _SLIDING else None for name in types}

    def __call__(self, position_N_T: Tensor, length: int, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """[N, 1, T, length]: 0 where a query at its position sees a key, the dtype's lowest number elsewhere."""
        age_N_1_T_L = position_N_T[:, None, :, None] - torch.arange(length, device=position_N_T.device)
        masks = {}
        for name, window in self._windows.items():
            hidden = age_N_1_T_L < 0 if window is None else (age_N_1_T_L < 0) | (age_N_1_T_L >= window)
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            masks[name] = mask.masked_fill_(hidden, torch.finfo(dtype).min)
        return masks if self._named else next(iter(masks.values()))
