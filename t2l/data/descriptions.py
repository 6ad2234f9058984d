"""The texts that training makes adapters from, encoded when they are first needed, looked up by number in every step.

Mostly descriptions, and called so here; see t2l/text/conditioning.py for what else they may be.

Axes: D descriptions, S tokens of all descriptions together, N looked-up texts, T tokens of the longest of them,
F features.

The frozen encoder would say the same every time, so its states are kept: fp16, without padding, on the training device,
and in a cache that runs share. Without a GPU they are not all made before the first step: those of 479 tasks with 128
descriptions each would take two cores ten minutes and more, while the few that a step draws add a fraction to it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from t2l.data.cache import ArrowCache, Caches, content_key
from t2l.data.shared import OnProgress
from t2l.errors import DataError
from t2l.tasks.task import Task
from t2l.text.conditioning import READ, training_texts
from t2l.text.encoder import TextEncoder, TextFeatures
from t2l.text.normalize import clean_descriptions
from t2l.text.uniform import encoder_rows, uniform_batches

_AT_ONCE = 8192
"""Texts between two reports of progress: enough for those of one length to fill batches."""
_GPU_ROWS = 64
"""Of a batch; serving, which waits for one text rather than for thousands, takes fewer."""


@dataclass(frozen=True)
class DescriptionNumbers:
    """All descriptions in the table's order, and where each task's stand: a task's are consecutive."""

    texts: tuple[str, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, condition: str, tasks: Sequence[Task], number: int) -> "DescriptionNumbers":
        """At most `number` texts of each task.

        Raises DataError for a task without any, DescriptionError for a text that no encoder would read.
        """
        texts = [training_texts(condition, task, number) for task in tasks]
        counts = [len(own) for own in texts]
        if 0 in counts:
            raise DataError(f"task '{tasks[counts.index(0)].name}' has no {condition}s: give it one or leave it out")
        starts = itertools.accumulate(counts, initial=0)
        every = tuple(itertools.chain(*texts))
        if condition in READ:
            clean_descriptions(every)  # now, rather than in the step that first draws it
        return cls(every, tuple(starts)[:-1], tuple(counts))


StatesOf = Callable[[Sequence[int]], Sequence[np.ndarray]]
"""States [T, F] (fp16) of the descriptions of these numbers."""


class DescriptionTable:
    """States of D descriptions, ragged, each asked for when it is first looked up."""

    def __init__(self, number: int, states_of: StatesOf, device: torch.device | str) -> None:
        self._states_of = states_of
        self._lengths_D = torch.zeros(number, dtype=torch.long)
        self._spans_D_2 = torch.zeros(number, 2, dtype=torch.long, device=device)
        self._states_S_F = torch.empty(0, 0, dtype=torch.half, device=device)
        self._used = 0

    def __len__(self) -> int:
        return len(self._lengths_D)

    def lookup(self, index_N: Tensor) -> TextFeatures:
        """States [N, T, F] and mask [N, T] on the table's device; `index_N` on the CPU, lest the host wait for T."""
        self.fetch(index_N[self._lengths_D[index_N] == 0].unique().tolist())
        width = int(self._lengths_D[index_N].max())
        spans_N_2 = self._spans_D_2[index_N.to(self._spans_D_2.device, non_blocking=True)]
        offsets_T = torch.arange(width, device=spans_N_2.device)
        mask_N_T = offsets_T < spans_N_2[:, 1:]
        rows_N_T = (spans_N_2[:, :1] + offsets_T).where(mask_N_T, 0)
        return TextFeatures(self._states_S_F[rows_N_T] * mask_N_T[..., None], mask_N_T)

    def fetch(self, numbers: Sequence[int]) -> None:
        """Have the states of descriptions that the table lacks."""
        if not numbers:
            return
        states = self._states_of(numbers)
        lengths_N = torch.tensor([len(own) for own in states])
        starts_N = self._used + lengths_N.cumsum(0) - lengths_N
        self._append(torch.from_numpy(np.concatenate(states)))
        index_N, device = torch.tensor(numbers), self._spans_D_2.device
        self._lengths_D[index_N] = lengths_N
        self._spans_D_2[index_N.to(device)] = torch.stack([starts_N, lengths_N], dim=1).to(device)

    def fill(self, on_progress: OnProgress | None = None) -> None:
        """Have the states of all."""
        lacking = (self._lengths_D == 0).nonzero().flatten().tolist()
        for start in range(0, len(lacking), _AT_ONCE):
            self.fetch(lacking[start : start + _AT_ONCE])
            if on_progress:
                on_progress(min(start + _AT_ONCE, len(lacking)), len(lacking))

    def _append(self, states_S_F: Tensor) -> None:
        """Room doubles when it runs out, so that all is copied twice at most."""
        before, self._used = self._used, self._used + len(states_S_F)
        if self._used > len(self._states_S_F):
            grown_S_F = self._states_S_F.new_empty(2 * self._used if before else self._used, states_S_F.shape[1])
            if before:
                grown_S_F[:before] = self._states_S_F[:before]
            self._states_S_F = grown_S_F
        self._states_S_F[before : self._used] = states_S_F.to(self._states_S_F.device)

    @classmethod
    def encode(
        cls,
        texts: Sequence[str],
        encoder: TextEncoder,
        device: torch.device | str = "cpu",
        on_progress: OnProgress | None = None,
    ) -> "DescriptionTable":
        """Encode everything here and now, in batches that depend on the texts alone."""
        table = cls(len(texts), lambda numbers: _states(encoder.encode([texts[i] for i in numbers])), device)
        table.fill(on_progress)
        return table


class KeptStates:
    """States of texts by number: from the cache, else from the encoder, and then into the cache.

    A text always gives the same bits, whichever others are encoded with it. Without caches nothing is kept.
    """

    def __init__(
        self, texts: Sequence[str], encoder: TextEncoder, device: torch.device | str, caches: Caches | None
    ) -> None:
        self.texts, self._encoder, self._rows = texts, encoder, encoder_rows(device, _GPU_ROWS)
        self._cache: ArrowCache | None = None
        if caches:
            self._cache = caches.open("descriptions", encoder.identity())
            self._keys = [content_key(text) for text in texts]
            self._width = encoder.feature_dim

    def known(self) -> list[int]:
        """Numbers of the texts that are in the cache."""
        if self._cache is None:
            return []
        return [number for number, found in enumerate(self._cache.find(self._keys)) if found]

    def __call__(self, numbers: Sequence[int]) -> list[np.ndarray]:
        if self._cache is None:
            return self._encode(numbers)
        records = self._cache.find([self._keys[number] for number in numbers])
        missing = [number for number, record in zip(numbers, records, strict=True) if record is None]
        fresh = dict(zip(missing, self._encode(missing), strict=True))
        for number, states in fresh.items():
            self._cache.add(self._keys[number], {"states": states.ravel()})
        return [
            fresh[number] if record is None else record["states"].reshape(-1, self._width)
            for number, record in zip(numbers, records, strict=True)
        ]

    def flush(self) -> None:
        """Let other runs have what this one has encoded."""
        if self._cache is not None:
            self._cache.flush()

    def _encode(self, numbers: Sequence[int]) -> list[np.ndarray]:
        texts = [self.texts[number] for number in numbers]
        found: dict[int, np.ndarray] = {}
        for batch, filled in uniform_batches(self._encoder.token_counts(texts) if texts else [], self._rows):
            found |= zip(batch, _states(self._encoder.encode([texts[i] for i in filled])), strict=False)
        return [found[i] for i in range(len(texts))]


def _states(features: TextFeatures) -> list[np.ndarray]:
    """Of each text, [T, F] in fp16: only the real tokens."""
    states = features.states_N_T_D.half().cpu()
    return [own[mask].numpy() for own, mask in zip(states, features.mask_N_T.cpu(), strict=True)]
