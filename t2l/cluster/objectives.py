"""What each objective trains with: a module that turns batches into losses, and the batches, step by step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from t2l.cluster.place import Place
from t2l.cluster.records import Tell
from t2l.cluster.teacher import Teacher
from t2l.config import DistillConfig, ReconConfig, RunConfig, ThroughBaseConfig
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.recon_steps import ReconSteps
from t2l.data.steps import SftSteps
from t2l.data.teacher import TeacherPool, teacher_prompts
from t2l.errors import ConfigError
from t2l.hypernet.text_to_lora import TextToLoraModel
from t2l.lora.apply import PerRowLora
from t2l.lora.library import Library
from t2l.tasks.task import Task
from t2l.text.positions import positions
from t2l.text.prompts import PromptFormat
from t2l.train.recon import ReconModule
from t2l.train.step import SftModule


@dataclass(frozen=True)
class Ingredients:
    """What a worker has when it comes to the objective."""

    config: RunConfig
    place: Place
    tell: Tell
    base: PerRowLora
    tokenizer: PreTrainedTokenizerBase
    tasks: Sequence[Task]
    numbers: DescriptionNumbers
    model: TextToLoraModel


Parts = tuple[SftModule, SftSteps] | tuple[ReconModule, ReconSteps]


def _sft(i: Ingredients) -> Parts:
    return _through_base(i, None)


def _distill(i: Ingredients) -> Parts:
    """Each worker lets the base model answer its share of the pool; all read all of it."""
    train = i.config.train
    assert isinstance(train, DistillConfig)
    prompts = teacher_prompts(i.tasks, PromptFormat.of(i.tokenizer), train)
    work = i.place.shared_work("teacher", i.config, train.top_k, train.answer_tokens)
    teacher = Teacher(i.base, i.tokenizer, train)
    work.do_share(prompts, teacher, lambda done, of: i.tell({"phase": f"the base model answers: {done:,} of {of:,}"}))
    i.place.wait_for_all()
    return _through_base(i, TeacherPool(work.parts(prompts), i.tasks, train))


def _through_base(i: Ingredients, pool: TeacherPool | None) -> Parts:
    train = i.config.train
    assert isinstance(train, ThroughBaseConfig)
    config = i.config.model_copy(update={"data": i.config.data.within(positions(i.base.model.config))})
    place, caches = i.place, i.place.caches(config, i.tell)
    steps = SftSteps(config, i.tasks, i.numbers, i.tokenizer, place.rank, place.world_size, pool, caches)
    return SftModule(i.base, i.model, train), steps


def _recon(i: Ingredients) -> Parts:
    train = i.config.train
    assert isinstance(train, ReconConfig)
    if not train.library:
        raise ConfigError("train.library is empty: give the folder of LoRAs that jobs/train_oracles.py wrote")
    i.tell({"phase": "loading the library"})
    library = Library.open(train.library).weights([task.name for task in i.tasks], i.base.spec).to(i.place.device)
    steps = ReconSteps(i.config, i.numbers, i.place.rank, i.place.world_size)
    return ReconModule(library, i.model.to(i.place.device), train), steps


OBJECTIVES: dict[str, Callable[[Ingredients], Parts]] = {"sft": _sft, "distill": _distill, "recon": _recon}
