"""The next token of every row, all in one go, each row by its own settings and random numbers.

Axes: R rows, N rows in use, M rows that draw, V vocabulary, L positions.
"""

import torch
from torch import Tensor

from serve.protocol import Sampling

_GREEDY_BELOW = 1e-5
"""Temperatures from here down pick the likeliest token: dividing by less overflows."""


class Sampler:
    """Settings and random numbers of R rows.

    A row's numbers are drawn from its own seed when it starts, one a position, so that neither its company nor the
    row that it happens to be in changes what it says.
    """

    def __init__(self, rows: int, max_length: int, device: torch.device) -> None:
        self._settings_R_2 = torch.ones(rows, 2, device=device)
        self._uniform_R_L = torch.zeros(rows, max_length, device=device)
        self._draws = [False] * rows
        self._cuts = [False] * rows

    def start(self, row: int, sampling: Sampling, position: int, count: int) -> None:
        """Prepare a row for `count` tokens, the first of them sampled at `position`."""
        self._draws[row] = sampling.temperature > _GREEDY_BELOW
        self._cuts[row] = sampling.top_p < 1
        if not self._draws[row]:
            return
        generator = torch.Generator()
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
        self._settings_R_2[row] = torch.tensor([sampling.temperature, sampling.top_p])
        self._uniform_R_L[row, position : position + count] = torch.rand(count, generator=generator)

    def move(self, source: int, target: int) -> None:
        """Continue row `source` as row `target`."""
        self._draws[target], self._cuts[target] = self._draws[source], self._cuts[source]
        self._settings_R_2[target] = self._settings_R_2[source]
        self._uniform_R_L[target] = self._uniform_R_L[source]

    def sample(self, logits_N_V: Tensor, position_N: Tensor) -> Tensor:
        """Tokens [N] of the first N rows, which have come to these positions."""
        token_N = logits_N_V.argmax(-1)
        drawing = [row for row in range(len(logits_N_V)) if self._draws[row]]
        if not drawing:
            return token_N
        row_M = torch.tensor(drawing, device=logits_N_V.device)
        temperature_M, top_p_M = self._settings_R_2[row_M].unbind(1)
        probs_M_V = (logits_N_V[row_M].float() / temperature_M[:, None]).softmax(-1)
        if cutting := [m for m, row in enumerate(drawing) if self._cuts[row]]:
            cut = torch.tensor(cutting, device=logits_N_V.device)
            probs_M_V[cut] = nucleus(probs_M_V[cut], top_p_M[cut])
        token_N[row_M] = draw(probs_M_V, self._uniform_R_L[row_M, position_N[row_M]])
        return token_N


def nucleus(probs_M_V: Tensor, top_p_M: Tensor) -> Tensor:
    """The likeliest tokens that together reach top_p, at least one of them; all others get 0 (arXiv:1904.09751)."""
    sorted_M_V, order_M_V = probs_M_V.sort(descending=True, stable=True)
    keep_M_V = sorted_M_V.cumsum(-1) - sorted_M_V < top_p_M[:, None]
    keep_M_V[:, 0] = True
    return torch.zeros_like(probs_M_V).scatter_(1, order_M_V, sorted_M_V * keep_M_V)


def draw(probs_M_V: Tensor, uniform_M: Tensor) -> Tensor:
    """Tokens [M] by inverting each row's cumulative distribution at a number in [0, 1); probs need not sum to 1."""
    cumulative_M_V = probs_M_V.cumsum(-1, dtype=torch.float64)  # in fp32, 1 - 2^-24 of the total may round up to all
    goal_M_1 = uniform_M[:, None] * cumulative_M_V[:, -1:]
    token_M = torch.searchsorted(cumulative_M_V, goal_M_1, right=True)[:, 0]
    return token_M.clamp(max=probs_M_V.shape[1] - 1)  # for NaN, which must not go beyond its own row
