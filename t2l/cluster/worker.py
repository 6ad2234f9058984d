"""What one worker does in a training run. No Ray here: the same code runs on one device without a cluster.

Everything is built in the worker from the config; no live model crosses a process boundary.
"""

import itertools
from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t2l.cluster.model_files import ModelWriter
from t2l.cluster.objectives import OBJECTIVES, Ingredients
from t2l.cluster.place import Place
from t2l.cluster.records import Records, Silence, Tell
from t2l.cluster.validate import validation_tasks
from t2l.config import RunConfig
from t2l.data.descriptions import DescriptionNumbers, DescriptionTable, KeptStates
from t2l.data.suite import build_suite
from t2l.errors import ConfigError
from t2l.evaluation.questions import refuse_code
from t2l.hypernet.text_to_lora import build_model
from t2l.lora.apply import PerRowLora
from t2l.tasks.task import TaskSuite
from t2l.text.conditioning import READ, known_names
from t2l.text.encoder import TextEncoder, build_encoder
from t2l.train.base import build_spec, fingerprint, load_base
from t2l.train.engine import Engine
from t2l.train.loop import train
from t2l.train.module import TrainModule
from t2l.train.state import CheckpointStore, State
from t2l.train.validations import Validate

MakeEngine = Callable[[TrainModule, State | None], Engine]


def run_worker(config: RunConfig, place: Place, make_engine: MakeEngine, validate: Validate, tell: Tell) -> None:
    """Train one run to its end, from its newest checkpoint if it has one."""
    suite = build_suite(config.data)
    check_code(config, suite)
    tasks = suite.train
    for note in suite.notes:
        tell({"note": note})
    numbers = DescriptionNumbers.of(config.condition, tasks, config.data.num_descriptions)
    names = known_names(config.condition, tasks)
    tell({"phase": "loading the base model"})
    base, tokenizer = load(config, place)
    spec = build_spec(config.lora, base.config)
    encoder = build_encoder(config.encoder, base, tokenizer, names)
    caches = None if names or reads_in_step(config, place) else place.caches(config, tell)
    states = KeptStates(numbers.texts, encoder, place.device, caches)
    table = make_table(config, place, encoder, states, tell)

    torch.manual_seed(config.seed)
    model = build_model(config, spec, encoder.feature_dim)
    ingredients = Ingredients(config, place, tell, PerRowLora(base, spec), tokenizer, tasks, numbers, model)
    module, steps = OBJECTIVES[config.train.objective](ingredients)
    store = CheckpointStore(place.run_dir, config.train.keep_checkpoints, config.run_url)
    start, state = resume(store, place, tell)
    engine = make_engine(module, state)
    hooks = Silence()
    if place.rank == 0:
        about = {"base_fingerprint": fingerprint(base), "names": list(names)}
        hooks = Records(config, store, ModelWriter(config, spec, encoder.feature_dim, about), tell, start)
    tell({"phase": "training", "unit": steps.unit})
    train(engine, steps, table, config, hooks, validate if validation_tasks(config, suite) else None, start)
    hooks.close()
    states.flush()


def check_code(config: RunConfig, suite: TaskSuite) -> None:
    """Now, not when training is over: raise ConfigError if answers would have to be run and may not be."""
    if config.data.run_code:
        return
    asked = [*suite.validation] if config.train.validation_inputs else []
    if config.train.report_inputs:
        asked += itertools.chain(suite.train, suite.test, *suite.extra.values())
    refuse_code({task.name: task.metric for task in asked})


def load(config: RunConfig, place: Place) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model and its tokenizer, whole or this worker's part."""
    if not _is_sharded(config, place):
        return load_base(config.base, place.device)
    from t2l.train.shard import load_sharded_base

    if config.train.objective == "distill":
        raise ConfigError(
            "cluster.shard_base is true, but for distillation (train.objective=distill) each worker needs the whole "
            "base, to answer inputs by itself: set it to false, or use train.objective=sft"
        )
    return load_sharded_base(config.base, place.device)


def _is_sharded(config: RunConfig, place: Place) -> bool:
    return config.cluster.shard_base and place.world_size > 1


def reads_in_step(config: RunConfig, place: Place) -> bool:
    """Whether the texts are read by a partitioned base, which answers all workers at once or none."""
    return _is_sharded(config, place) and "llm" in config.encoder.kinds and config.condition in READ


def make_table(
    config: RunConfig, place: Place, encoder: TextEncoder, states: KeptStates, tell: Tell
) -> DescriptionTable:
    """What is in the cache, at once; the rest is encoded by the worker whose step draws it, and then kept there.

    A GPU by itself encodes all before the first step, as a pool does for several (encode.py): in small batches, step by
    step, that takes it longer than the training does.
    """

    def show(done: int, of: int) -> None:
        tell({"phase": f"encoding descriptions: {done:,} of {of:,}"})

    if reads_in_step(config, place):
        return DescriptionTable.encode(states.texts, encoder, place.device, show)
    table = DescriptionTable(len(states.texts), states, place.device)
    table.fetch(states.known())
    if place.device == "cuda" and place.world_size == 1:
        table.fill(show)
    return table


def resume(store: CheckpointStore, place: Place, tell: Tell) -> tuple[int, State | None]:
    """After which step to go on, and the state then; the first worker decides, as a checkpoint may be damaged."""
    step = 0
    if place.rank == 0:
        for note in store.recover():
            tell({"note": note})
        step = max(store.steps(), default=0)
        if step:
            tell({"note": f"going on after step {step:,}"})
    step = place.agree(step)
    return step, store.state(step) if step else None
