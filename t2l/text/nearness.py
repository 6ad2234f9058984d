"""How close a description is to those that T2L was trained on, so that a far one can be warned of.

Axes: N texts, T tokens, D features of the frozen encoder, M reference descriptions, K nearest of them.

Nearness is measured in the frozen encoder's states. The task embedding will not do: the trained reader maps whatever
it is given, even letters drawn at random, to some task that it knows.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from t2l.errors import CheckpointError
from t2l.files import complete_file
from t2l.text.encoder import TextFeatures

NEARNESS_FILE = "nearness.safetensors"
NEIGHBOURS = 10
JUNK_CAUGHT, FALSE_ALARMS = 0.985, 0.02
"""The threshold catches this share of calibration junk, or less where it would raise more false alarms than that."""

_ABOUT, _REFERENCES = "nearness", "references"


def far_warning(nearness: float) -> str:
    """What to say of a description that is far."""
    return (
        f"this is far from what T2L was trained on (nearness {nearness:.2f}): "
        "the adapter may not do what the description says"
    )


def mean_states(features: TextFeatures) -> Tensor:
    """The mean over a text's real tokens, [N, D]: what a NearnessIndex compares."""
    mask_N_T_1 = features.mask_N_T[..., None]
    return (features.states_N_T_D * mask_N_T_1).sum(1) / mask_N_T_1.sum(1)


@dataclass(frozen=True, eq=False)
class NearnessIndex:
    """Training descriptions to compare with, and the nearness below which a text is far from all of them."""

    references_M_D: Tensor
    """Unit length, fp32; stored as fp16."""
    threshold: float
    model_sha256: str
    """Of the weights of the checkpoint that it belongs to."""

    @classmethod
    def build(cls, known_M_D: Tensor, held_out_N_D: Tensor, junk_N_D: Tensor, model_sha256: str) -> Self:
        """An index of the mean states of training descriptions.

        The threshold comes from held-out descriptions, which shall not be far, and junk, which shall.
        """
        references_M_D = normalize(known_M_D.float().cpu(), dim=-1).half().float()  # as they will be read back
        index = cls(references_M_D, -1.0, model_sha256)
        catches_junk = torch.quantile(index.nearness(junk_N_D), JUNK_CAUGHT)
        spares_held_out = torch.quantile(index.nearness(held_out_N_D), FALSE_ALARMS)
        return cls(references_M_D, torch.minimum(catches_junk, spares_held_out).item(), model_sha256)

    def nearness(self, states_N_D: Tensor) -> Tensor:
        """Mean cosine similarity to the K nearest references, [N] from -1 to 1, of mean states [N, D]."""
        states_N_D = states_N_D.to(self.references_M_D.device, torch.float32)
        similarity_N_M = normalize(states_N_D, dim=-1) @ self.references_M_D.T
        return similarity_N_M.topk(min(NEIGHBOURS, len(self.references_M_D))).values.mean(1)

    def to(self, device: torch.device) -> Self:
        """One that compares there."""
        return replace(self, references_M_D=self.references_M_D.to(device))

    def is_far(self, nearness_N: Tensor) -> Tensor:
        """Which of these values, [N], lie below the threshold."""
        return nearness_N < self.threshold

    def save(self, folder: Path) -> Path:
        """Write the index into a checkpoint folder as one file, complete or absent, in place of an older one."""
        about = {"threshold": self.threshold, "model_sha256": self.model_sha256}
        with complete_file(folder / NEARNESS_FILE) as fresh:
            save_file({_REFERENCES: self.references_M_D.half()}, fresh, metadata={_ABOUT: json.dumps(about)})
        return folder / NEARNESS_FILE

    @classmethod
    def load(cls, folder: Path, model_sha256: str) -> Self | None:
        """Read a checkpoint folder's index; None if it has none.

        Raises CheckpointError if the file is damaged or was built for other weights than those with `model_sha256`.
        """
        file = folder / NEARNESS_FILE
        if not file.is_file():
            return None
        again = "build it again with python jobs/build_nearness.py"
        try:
            with safe_open(file, framework="pt") as stored:
                about = json.loads((stored.metadata() or {})[_ABOUT])
                index = cls(stored.get_tensor(_REFERENCES).float(), about["threshold"], about["model_sha256"])
        except (SafetensorError, json.JSONDecodeError, KeyError) as error:
            raise CheckpointError(f"{file} is damaged ({error}): {again}") from None
        if index.model_sha256 != model_sha256:
            raise CheckpointError(
                f"{file} was built for weights with sha256 {index.model_sha256}, not {model_sha256}: {again}"
            )
        return index
