"""The tensors of all running answers: one row each, compact, in fixed buffers.

Axes: R rows, N rows in use (always the first N), K new rows, T prompt tokens (of a row; of all where they are packed),
P parameters of an adapter, L positions.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from serve.engine.fused_attention import can_fuse, fuse_attention
from serve.engine.graphs import EngineGraphs, enough, prompt_sizes, step_sizes
from serve.engine.kv import AttentionMasks, RowCache
from serve.engine.prompts import PackedPrompts
from serve.engine.sampling import Sampler
from serve.protocol import Sampling
from t2l.lora.apply import PerRowLora
from t2l.lora.flat import FlatLayout
from t2l.lora.together import Segments


class RowBatch:
    """Rows that decode together, each under an adapter of its own; rows join and leave between steps.

    A row holds a copy of its adapter, so that a step gathers nothing. Prompts are read up to their last token; that one
    enters the row's first decoding step, so that every token is sampled in the same place. On a GPU, prompts stand one
    after the other without padding, and all passes are CUDA graphs.
    prefill_tokens: of several prompts that are read at once.
    compiled: with compiled decoder layers, on a GPU.
    """

    def __init__(
        self, base: PerRowLora, rows: int, max_length: int, prefill_tokens: int, compiled: bool = False
    ) -> None:
        model = base.model
        config, device = model.config.get_text_config(), model.device
        layout = FlatLayout(base.spec)
        self._base = base
        self._fused = can_fuse(model)
        self._cache = RowCache(model, rows, max_length, self._fused)
        if self._fused:
            fuse_attention(model, self._cache.buffer)
        self._masks = AttentionMasks(config)
        self._sampler = Sampler(rows, max_length, device)
        self._adapter_R_P = torch.zeros(rows, layout.size, dtype=model.dtype, device=device)
        # Made anew in every step, the views of so many small matrices would cost as much as a layer.
        self._pairs = lru_cache(rows)(lambda first, end: base.pairs(layout.unflatten(self._adapter_R_P[first:end])))
        self._adapted = [False] * rows
        self._token_R = torch.zeros(rows, dtype=torch.long, device=device)
        self._position_R = torch.zeros(rows, dtype=torch.long, device=device)
        self._lengths: list[int] = []  # on the host: positions written or to be written next, by row in use
        self._step_sizes, self._prompt_sizes = step_sizes(rows), prompt_sizes(max(prefill_tokens, max_length))
        self._prompts = PackedPrompts.empty(self._prompt_sizes[-1] if self._fused else 0, device)
        layers = base.decoder_layers if compiled else []
        self._graphs = EngineGraphs(layers) if self._fused and device.type == "cuda" else None

    @torch.inference_mode()
    def warm_up(self) -> None:
        """On a GPU: record all passes now, which takes seconds. No row may be in use."""
        if self._graphs is not None:
            for adapted in (False, True):
                # The largest first: the others then need no memory of their own.
                for tokens in reversed(self._prompt_sizes):
                    self._graphs(self._read_packed, tokens, adapted)
                for rows in reversed(self._step_sizes):
                    self._graphs(self._logits, rows, adapted)

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

    def prefill_cost(self, lengths: Sequence[int]) -> int:
        """Tokens that reading prompts of these lengths computes."""
        return sum(lengths) if self._fused else max(lengths) * len(lengths)

    def read(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read the prompts [K] of the rows that joined last."""
        first = len(self) - len(prompts)
        adapted = any(self._adapted[first : len(self)])
        prompts = [prompt[:-1] for prompt in prompts]
        if not any(prompts):
            return
        if self._fused:
            size = enough(self._prompt_sizes, sum(map(len, prompts)))
            self._prompts.first(size).put(prompts, first)
            self._run(self._read_packed, size, adapted)
        else:
            self._read_padded(prompts, first, adapted)

    def _read_packed(self, size: int, adapted: bool) -> None:
        """What lies in the first places of `_prompts`."""
        token_T, row_T, position_T = self._prompts.first(size)
        pairs = self._pairs(0, len(self._adapter_R_P)) if adapted else None
        with self._base.installed(pairs, Segments(row_T)):
            self._base.model.base_model(
                input_ids=token_T[None],
                position_ids=position_T.clamp(min=0)[None],
                past_key_values=self._cache,
                use_cache=True,
                row_T=row_T,
                position_T=position_T,
            )

    def _read_padded(self, prompts: Sequence[Sequence[int]], first: int, adapted: bool) -> None:
        width, device = max(map(len, prompts)), self._token_R.device
        padded = [[*ids, *[0] * (width - len(ids))] for ids in prompts]
        position_1_T = torch.arange(width, device=device)[None]
        self._cache.write_prompts(first, position_1_T >= self._position_R[first : len(self), None])
        with self._adapters(first, len(self), adapted):
            self._base.model.base_model(
                input_ids=torch.tensor(padded, device=device),
                position_ids=position_1_T,
                attention_mask=self._masks(position_1_T, width, self._base.model.dtype),
                past_key_values=self._cache,
                use_cache=True,
            )

    def step(self) -> list[int]:
        """One new token for every row in use."""
        n = len(self)
        adapted = any(self._adapted[:n])
        size = n if self._graphs is None else enough(self._step_sizes, n)  # rows beyond n decode in vain
        logits_N_V = self._run(self._logits, size, adapted)[:n]
        token_N, position_N = self._token_R[:n], self._position_R[:n]
        token_N.copy_(self._sampler.sample(logits_N_V, position_N))
        position_N += 1
        self._lengths = [length + 1 for length in self._lengths]
        return token_N.tolist()

    def _logits(self, n: int, adapted: bool) -> Tensor:
        """Logits [N, V] of the next tokens of the first n rows."""
        position_N = self._position_R[:n]
        if self._fused:
            attention: dict[str, Any] = {"row_position_N": position_N}
        else:
            longest = max(self._lengths, default=0) + 1
            self._cache.write_tokens(position_N, longest)
            attention = {"attention_mask": self._masks(position_N[:, None], longest, self._base.model.dtype)}
        with self._adapters(0, n, adapted):
            output = self._base.model(
                input_ids=self._token_R[:n, None],
                position_ids=position_N[:, None],
                past_key_values=self._cache,
                use_cache=True,
                **attention,
            )
        return output.logits[:, -1]

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
        self._position_R[last] = 0  # a graph of more rows than are in use writes there

    def _run(self, function: Callable[..., Any], *args: int) -> Any:
        return function(*args) if self._graphs is None else self._graphs(function, *args)

    def _adapters(self, first: int, end: int, adapted: bool) -> AbstractContextManager[None]:
        """The adapters of these rows; none at all where all are the base model's."""
        return self._base.installed(self._pairs(first, end) if adapted else None)
