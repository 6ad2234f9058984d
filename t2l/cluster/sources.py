"""Where an evaluator's adapters come from: nowhere, a checkpoint, a library, or PEFT's Arrow over a library."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedModel

from t2l.checkpoint import read_info
from t2l.cluster.aims import Aim, known_training_tasks
from t2l.config import BaseConfig, EncoderConfig, ReconConfig
from t2l.data.suite import build_suite
from t2l.evaluation.arrow import MAX_ADAPTERS, arrow_model
from t2l.evaluation.decode import Unadapted
from t2l.evaluation.methods import ARROW, LIBRARY, REFINE_EXAMPLES, REFINED
from t2l.evaluation.retrieval import Nearest, average_of, mean_adapter
from t2l.evaluation.suite import Evaluation, MakeAdapters
from t2l.lora.apply import PerRowLora
from t2l.lora.distance import squared_distances, squared_norms
from t2l.lora.library import Library
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Task
from t2l.text.conditioning import training_texts
from t2l.text.sentence import SentenceEncoder
from t2l.text_to_lora import TextToLora
from t2l.train.base import load_base
from t2l.train.lora import LoraTraining, refine_loras

_STATIC_TASKS, _CHUNK = 512, 128
_REFINED_AT_ONCE = 64


class FrozenBase:
    """The base model, loaded once; its LoRA layers are exchanged when adapters of another spec come."""

    def __init__(self, config: BaseConfig, device: str) -> None:
        self.config = config
        self.model, self.tokenizer = load_base(config, device)
        self._lora: PerRowLora | None = None

    def with_layers_for(self, spec: LoraSpec) -> PerRowLora:
        """Ready for adapters of a spec. What was given out for another spec must not be used any more."""
        if self._lora is None or self._lora.spec != spec:
            self._lora = PerRowLora(self.model if self._lora is None else self._lora.released(), spec)
        return self._lora


class Source(Protocol):
    """Answers for all aims that share its folder."""

    def evaluation(self, aim: Aim) -> Evaluation: ...

    def errors(self, aim: Aim, names: Sequence[str]) -> dict[str, float]:
        """Of tasks by name: what reconstruction is off by; empty where there is nothing to reconstruct."""
        return {}


def open_source(aim: Aim, base: FrozenBase) -> Source:
    """The source of an aim; any older one must not be used any more."""
    if not aim.source:
        return PromptSource(base)
    return LibrarySource(aim, base) if aim.method in LIBRARY else CheckpointSource(aim, base)


class PromptSource(Source):
    """The base model alone."""

    def __init__(self, base: FrozenBase) -> None:
        self._base = base

    def evaluation(self, aim: Aim) -> Evaluation:
        return Evaluation(Unadapted(self._base.model), self._base.tokenizer, None, aim.data)


class CheckpointSource(Source):
    """What a checkpoint makes, as it is or refined by a few examples."""

    def __init__(self, aim: Aim, base: FrozenBase) -> None:
        layers = base.with_layers_for(read_info(aim.source).spec)
        self._t2l = TextToLora.from_pretrained(aim.source, frozen=(layers, base.tokenizer))

    def evaluation(self, aim: Aim) -> Evaluation:
        return Evaluation(self._t2l.base, self._t2l.tokenizer, self._maker(aim), aim.data)

    def errors(self, aim: Aim, names: Sequence[str]) -> dict[str, float]:
        """Squared distance of the products B A to those of the library learnt from, as a share of the latter's size."""
        train = self._t2l.config.train
        if not isinstance(train, ReconConfig) or not Path(train.library).is_dir():
            return {}
        if aim.head.split != "seen" or aim.head.wording not in ("seen", "unseen"):
            return {}
        key_of = {question.task: question.key or "" for question in aim.questions(names)}
        targets = Library.open(train.library).weights(names, self._t2l.base.spec)
        weights = self._generate([key_of[name] for name in names]).to("cpu")
        shares = squared_distances(weights, targets) / squared_norms(targets)
        return dict(zip(names, shares.tolist(), strict=True))

    def _maker(self, aim: Aim) -> MakeAdapters:
        if aim.head.wording == "static":
            return lambda keys: self._mean
        if aim.method == REFINED:
            tasks = {task.name: task for task in aim.scope.splits[aim.head.split]}
            return lambda names: self._refine([tasks[name] for name in names])
        return self._generate

    def _generate(self, keys: Sequence[str]) -> LoraWeights:
        return self._t2l.generate(keys).weights

    @cached_property
    def _mean(self) -> LoraWeights:
        """The mean adapter over a description of each of up to _STATIC_TASKS training tasks."""
        config = self._t2l.config
        tasks = build_suite(config.data).train[:_STATIC_TASKS]
        texts = [training_texts(config.condition, task, 1)[0] for task in tasks]
        starts = range(0, len(texts), _CHUNK)
        return mean_adapter(self._generate(texts[start : start + _CHUNK]) for start in starts)

    def _refine(self, tasks: Sequence[Task]) -> LoraWeights:
        """From the first unseen description of each task, and its first training examples."""
        if len(tasks) > _REFINED_AT_ONCE:
            starts = range(0, len(tasks), _REFINED_AT_ONCE)
            return LoraWeights.cat([self._refine(tasks[start : start + _REFINED_AT_ONCE]) for start in starts])
        weights = self._generate([task.unseen_descriptions[0] for task in tasks])
        examples = [task.train[:REFINE_EXAMPLES] for task in tasks]
        t2l = self._t2l
        return refine_loras(t2l.base, t2l.tokenizer, weights, examples, LoraTraining(), t2l.config.data)


class LibrarySource(Source):
    """One trained LoRA a task: the task's own, the nearest task's, the average of them, or routed by Arrow."""

    def __init__(self, aim: Aim, base: FrozenBase) -> None:
        self._library, self._base = Library.open(aim.source), base
        self._training = known_training_tasks(self._library, aim.scope)
        self._spec = self._library.weights(self._library.tasks[:1]).spec

    def evaluation(self, aim: Aim) -> Evaluation:
        if aim.method == ARROW:
            return Evaluation(Unadapted(self._arrow), self._base.tokenizer, None, aim.data)
        makers: dict[str, MakeAdapters] = {
            "oracle": self._oracles,
            "average": lambda keys: self._average,
            "nearest": lambda texts: self._oracles(self._nearest(texts)),
        }
        layers = self._base.with_layers_for(self._spec)
        return Evaluation(layers, self._base.tokenizer, makers[aim.method.name], aim.data)

    def _oracles(self, names: Sequence[str]) -> LoraWeights:
        return self._library.weights(names, self._spec)

    @cached_property
    def _average(self) -> LoraWeights:
        return average_of(self._library, [task.name for task in self._training])

    @cached_property
    def _nearest(self) -> Nearest:
        return Nearest(SentenceEncoder(EncoderConfig(), self._base.model.device), self._training)

    @cached_property
    def _arrow(self) -> PreTrainedModel:
        """On a base model of its own: PEFT rebuilds the layers."""
        model, _ = load_base(self._base.config, self._base.model.device)
        folders = [self._library.folders[task.name] for task in self._training[:MAX_ADAPTERS]]
        return arrow_model(model, folders)
