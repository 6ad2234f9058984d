"""The Python face: a trained checkpoint that turns descriptions into adapters, and its base model to run them on.

Axes: N descriptions, E task embedding.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t2l.checkpoint import Checkpoint, load_checkpoint, weights_sha256
from t2l.config import RunConfig
from t2l.embedded import CHECKPOINT_DIR
from t2l.errors import CheckpointError, ConfigError, DescriptionError, ResourceError, SpecMismatchError
from t2l.evaluation.generate import greedy_answers
from t2l.hypernet.text_to_lora import TextToLoraModel
from t2l.lora.apply import PerRowLora
from t2l.lora.peft_io import CARD_FILE, peft_files, write_folder
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights
from t2l.storage import fetched
from t2l.tasks.task import Example
from t2l.text.encoder import TextEncoder, TextFeatures, build_encoder
from t2l.text.prompts import PromptFormat
from t2l.train.base import base_path, fingerprint, load_base
from t2l.train.lora import refine_loras
from t2l.train.lora_settings import LoraTraining
from t2l.train.state import CheckpointStore

MAX_NEW_TOKENS = 128

Frozen = tuple[PerRowLora, PreTrainedTokenizerBase]
"""A base model, ready for adapters, and its tokenizer."""


@dataclass(frozen=True)
class Origin:
    """Where an adapter comes from: the base model, the checkpoint's name and the sha256 of its weights."""

    base: str
    checkpoint: str
    sha256: str


@dataclass(frozen=True)
class GeneratedAdapter:
    """One adapter; `weights` holds just this one (n = 1), `description` is None if it came from an embedding.

    note: what became of it since, for the card.
    """

    weights: LoraWeights
    description: str | None
    origin: Origin
    note: str = ""

    def state_dict(self) -> dict[str, Tensor]:
        """A [r, in] and B [out, r] of every target layer under PEFT's keys."""
        return self.weights.state_dict()

    def save_pretrained(self, directory: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write a PEFT folder with a card that names description, checkpoint and base; complete or absent.

        Raises CheckpointError if the folder exists and `overwrite` is False; with it, all of the old folder goes.
        """
        write_folder(directory, self.files(), overwrite)
        return Path(directory)

    def files(self) -> dict[str, bytes]:
        """The files of that folder, by name."""
        files = peft_files(self.weights, 0, self.origin.base, self.description)
        card = f"\nT2L checkpoint: `{self.origin.checkpoint}`, sha256 `{self.origin.sha256}`.\n"
        files[CARD_FILE] += (card + (f"\n{self.note}\n" if self.note else "")).encode()
        return files


@dataclass(frozen=True)
class GeneratedAdapters:
    """The adapters of one call, to iterate over or to index; `weights` holds all of them, [n] adapters."""

    weights: LoraWeights
    descriptions: tuple[str | None, ...]
    origin: Origin

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: int) -> GeneratedAdapter:
        number = range(len(self))[index]  # negative ones count from the end
        return GeneratedAdapter(self.weights.select(slice(number, number + 1)), self.descriptions[number], self.origin)

    def __iter__(self) -> Iterator[GeneratedAdapter]:
        return (self[index] for index in range(len(self)))


class TextToLora:
    """Text encoder, hypernetwork and frozen base model of one checkpoint; `from_pretrained` makes it.

    Not thread-safe: the adapters of a running call are state of the base model's layers.
    """

    def __init__(
        self,
        model: TextToLoraModel,
        encoder: TextEncoder,
        base: PerRowLora,
        tokenizer: PreTrainedTokenizerBase,
        origin: Origin,
        config: RunConfig,
    ) -> None:
        self.model, self.encoder, self.base, self.tokenizer = model, encoder, base, tokenizer
        self.origin, self.config = origin, config
        self._chat = PromptFormat.of(tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        frozen: Frozen | None = None,
    ) -> Self:
        """Load a checkpoint folder (None: the packaged one) and the base model that it was trained for.

        path: may be a run's folder, for its best checkpoint, or an address such as
        s3://bucket/runs/mine/checkpoints/step-000100, which is fetched first.

        device: None takes a GPU if there is one. frozen: the base model if it is loaded already, with its tokenizer;
        adapters may be installed in it, but of the checkpoint's spec.

        Raises CheckpointError for a folder that is missing, damaged or no checkpoint, SpecMismatchError if its base
        model has become another one, HubAccessError if that is out of reach, ResourceError if the device is not here.
        """
        folder = CHECKPOINT_DIR if path is None else find_checkpoint(path)
        if not folder.is_dir():
            raise CheckpointError(f"the checkpoint folder {folder} does not exist: give one that t2l training wrote")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        _check_device(device)
        checkpoint = load_checkpoint(folder)
        config, spec = checkpoint.config, checkpoint.spec
        if frozen is None:
            model, tokenizer = load_base(config.base, device)
            frozen = PerRowLora(model, spec), tokenizer
        base, tokenizer = frozen
        base.spec.check_matches(spec, "the loaded base model", "the checkpoint")
        origin = Origin(base_path(config.base), config.name, weights_sha256(folder))
        _check_base(checkpoint, base.model, folder, origin.base)
        encoder = build_encoder(config.encoder, base.model, tokenizer, checkpoint.names)
        return cls(checkpoint.model.to(base.model.device), encoder, base, tokenizer, origin, config)

    @torch.no_grad()
    def embed(self, descriptions: Sequence[str]) -> Tensor:
        """Task embeddings [N, E] of descriptions. Raises DescriptionError for an empty or over-long one."""
        features = self.read(descriptions)
        return self.model.embed(features.states_N_T_D, features.mask_N_T)

    def read(self, descriptions: Sequence[str]) -> TextFeatures:
        """What the encoder makes of descriptions. Raises DescriptionError as `embed` does."""
        if isinstance(descriptions, str) or not descriptions or not all(isinstance(text, str) for text in descriptions):
            raise DescriptionError(f"descriptions must be a list of at least one text, not {descriptions!r:.200}")
        return self.encoder.encode(descriptions).to(self.base.model.device)

    def generate(self, descriptions: Sequence[str]) -> GeneratedAdapters:
        """An adapter for each description, all in one forward pass.

        Raises DescriptionError for an empty or over-long one.
        """
        return self._adapters(self.embed(descriptions), tuple(descriptions))

    def from_embeddings(self, embedding_N_E: Tensor) -> GeneratedAdapters:
        """An adapter for each task embedding [N, E], such as `embed` gives. Raises SpecMismatchError for another E."""
        return self._adapters(embedding_N_E, (None,) * len(embedding_N_E))

    def refine(self, description: str, examples: Sequence[Example], steps: int = 100) -> GeneratedAdapter:
        """The adapter of a description, fine-tuned with a few examples of the task.

        Raises DescriptionError for an empty or over-long description, DataError if there are no examples.
        """
        [generated] = self.generate([description])
        training = LoraTraining(steps=steps)
        weights = refine_loras(self.base, self.tokenizer, generated.weights, [examples], training, self.config.data)
        return replace(generated, weights=weights, note=f"Refined with {len(examples)} examples in {steps} steps.")

    def run(
        self,
        descriptions: Sequence[str],
        inputs: Sequence[str],
        adapted: bool = True,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> list[str]:
        """Greedy answers to `inputs`, each under the adapter of its own description, or of the only one.

        The prompts hold no description: what comes out right is the adapter's doing. adapted=False asks the base model.
        Raises DescriptionError if the numbers do not fit, DataError for an input that leaves no room for an answer.
        """
        if len(descriptions) not in (1, len(inputs)):
            raise DescriptionError(
                f"{len(descriptions)} descriptions for {len(inputs)} inputs: give one each, or one for all"
            )
        weights = self._weights_of(descriptions) if adapted else None
        prompts = [self._chat.prompt(text) for text in inputs]
        return greedy_answers(self.base, self.tokenizer, prompts, weights, max_new_tokens)

    def _weights_of(self, descriptions: Sequence[str]) -> LoraWeights:
        """One adapter a description; repeated ones are generated once."""
        distinct = list(dict.fromkeys(descriptions))
        weights = self.generate(distinct).weights
        place = {text: number for number, text in enumerate(distinct)}
        return weights if len(distinct) == len(descriptions) else weights.select([place[t] for t in descriptions])

    @torch.no_grad()
    def _adapters(self, embedding_N_E: Tensor, descriptions: tuple[str | None, ...]) -> GeneratedAdapters:
        return GeneratedAdapters(self.model.hypernet(embedding_N_E), descriptions, self.origin)


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        message = f"the device '{device}' cannot be used here ({reason:.200}): leave it out, or give cpu"
        raise ResourceError(message) from None


def _check_base(checkpoint: Checkpoint, model: PreTrainedModel, folder: Path, base: str) -> None:
    """Raise SpecMismatchError if the base model lacks layers that the checkpoint makes adapters for, or is another."""
    spec = checkpoint.spec
    paths = [module.path for module in spec.modules]
    try:
        found = LoraSpec.from_config(model.config, paths, spec.rank, spec.alpha, spec.use_rslora)
        spec.check_matches(found, "the checkpoint", "the base model")
    except (ConfigError, SpecMismatchError) as error:
        message = f"the checkpoint {folder} was made for another base model than {base}: {error}"
        raise SpecMismatchError(message) from None
    known = checkpoint.base_fingerprint
    if known is not None and known != fingerprint(model):
        raise SpecMismatchError(
            f"the checkpoint {folder} was made for another base model than {base}: that has fingerprint "
            f"{fingerprint(model)}, the checkpoint's has {known}; give the base model that it was trained with"
        )


def find_checkpoint(place: str | os.PathLike[str]) -> Path:
    """A checkpoint folder itself, or the best checkpoint of a run's folder; absolute. An address is fetched first."""
    folder = fetched(os.fspath(place))
    if (folder / "checkpoints").is_dir():
        return (CheckpointStore(folder, keep=1).best() or folder).absolute()
    return folder.absolute()
