"""The tensors of all running answers: one row each, compact, in fixed buffers.

Axes: R rows, N rows in use (always the first N), K new rows, T prompt tokens, P parameters of an adapter, L positions.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache

import torch
from torch import Tensor

from serve.engine.kv import AttentionMasks, RowCache
from serve.engine.sampling import Sampler
from serve.protocol import Sampling
from t2l.lora.apply import PerRowLora
from t2l.lora.flat import FlatLayout


class RowBatch:
    """Rows that decode together, each under an adapter of its own; rows join and leave between steps.

    A row holds a copy of its adapter, so that a step gathers nothing. Prompts are read up to their last token; that one
    enters the row's first decoding step, so that every token is sampled in the same place.
    """

    def __init__(self, base: PerRowLora, rows: int, max_length: int) -> None:
        model = base.model
        config, device = model.config.get_text_config(), model.device
        layout = FlatLayout(base.spec)
        self._base = base
        self._cache = RowCache(config.num_hidden_layers, rows, max_length)
        self._masks = AttentionMasks(config)
        self._sampler = Sampler(rows, max_length, device)
        self._adapter_R_P = torch.zeros(rows, layout.size, dtype=model.dtype, device=device)
        # Made anew in every step, the views of so many small matrices would cost as much as a layer.
        self._pairs = lru_cache(rows)(lambda first, end: base.pairs(layout.unflatten(self._adapter_R_P[first:end])))
        self._adapted = [False] * rows
        self._token_R = torch.zeros(rows, dtype=torch.long, device=device)
        self._position_R = torch.zeros(rows, dtype=torch.long, device=device)
        self._lengths: list[int] = []  # on the host: positions written or to be written next, by row in use

    def __len__(self) -> int:
        """Rows in use."""
        return len(self._lengths)

    def join(self, prompt_ids: Sequence[int], adapter_P: Tensor | None, sampling: Sampling, max_tokens: int) -> None:
        """Take the next free row; `read` must follow before the next step."""
        row, last = len(self), len(prompt_ids) - 1
        self._lengths.append(last)
        self._adapted[row] = adapter_P is not None
        if adapter_P is None:
            self._adapter_R_P[row].zero_()
        else:
            self._adapter_R_P[row].copy_(adapter_P)
        self._token_R[row] = prompt_ids[last]
        self._position_R[row] = last
        self._sampler.start(row, sampling, last, max_tokens)

    def read(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read the prompts [K] of the rows that joined last."""
        first, width = len(self) - len(prompts), max(map(len, prompts)) - 1
        if not width:
            return
        device = self._token_R.device
        padded = [[*ids[:-1], *[0] * (width + 1 - len(ids))] for ids in prompts]
        position_1_T = torch.arange(width, device=device)[None]
        self._cache.write_prompts(first, position_1_T >= self._position_R[first : len(self), None])
        with self._adapters(first):
            self._base.model.base_model(
                input_ids=torch.tensor(padded, device=device),
                position_ids=position_1_T,
                attention_mask=self._masks(position_1_T, width, self._base.model.dtype),
                past_key_values=self._cache,
                use_cache=True,
            )

    def step(self) -> list[int]:
        """One new token for every row in use."""
        n, longest = len(self), max(self._lengths) + 1
        token_N, position_N = self._token_R[:n], self._position_R[:n]
        self._cache.write_tokens(position_N, longest)
        with self._adapters(0):
            output = self._base.model(
                input_ids=token_N[:, None],
                position_ids=position_N[:, None],
                attention_mask=self._masks(position_N[:, None], longest, self._base.model.dtype),
                past_key_values=self._cache,
                use_cache=True,
            )
        token_N.copy_(self._sampler.sample(output.logits[:, -1], position_N))
        position_N += 1
        self._lengths = [length + 1 for length in self._lengths]
        return token_N.tolist()

    def leave(self, row: int) -> None:
        """Free a row; the last one in use takes its place."""
        last = len(self) - 1
        self._cache.clear(row, self._lengths[row])
        if row != last:
            self._cache.move(last, row, self._lengths[last])
            self._cache.clear(last, self._lengths[last])
            self._sampler.move(last, row)
            for buffer in (self._adapter_R_P, self._token_R, self._position_R):
                buffer[row] = buffer[last]
            self._adapted[row], self._lengths[row] = self._adapted[last], self._lengths[last]
        self._lengths.pop()

    def _adapters(self, first: int) -> AbstractContextManager[None]:
        """The adapters of the rows in use from `first` on; none at all where all are the base model's."""
        adapted = any(self._adapted[first : len(self)])
        return self._base.installed(self._pairs(first, len(self)) if adapted else None)
