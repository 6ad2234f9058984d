"""What one worker does in a training run. No Ray here: the same code runs on one device without a cluster.

Everything is built in the worker from the config; no live model crosses a process boundary.
"""

import warnings
from collections.abc import Callable, Sequence

import torch

from t2l.cluster.model_files import ModelWriter
from t2l.cluster.objectives import OBJECTIVES, Ingredients
from t2l.cluster.place import Place
from t2l.cluster.records import Records, Silence, Tell
from t2l.cluster.validate import validation_tasks
from t2l.config import RunConfig
from t2l.data.descriptions import DescriptionNumbers, DescriptionTable, ragged
from t2l.data.suite import build_suite
from t2l.hypernet.text_to_lora import build_model
from t2l.lora.apply import PerRowLora
from t2l.text.conditioning import known_names
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
    tasks = suite.train
    numbers = DescriptionNumbers.of(config.condition, tasks, config.data.num_descriptions)
    names = known_names(config.condition, tasks)
    tell({"phase": "loading the base model"})
    base, tokenizer = load_base(config.base, place.device)
    spec = build_spec(config.lora, base.config)
    encoder = build_encoder(config.encoder, base, tokenizer, names)
    table = encode_descriptions(config, place, encoder, numbers.texts, tell)

    torch.manual_seed(config.seed)
    model = build_model(config, spec, encoder.feature_dim)
    ingredients = Ingredients(config, place, tell, PerRowLora(base, spec), tokenizer, tasks, numbers, model)
    module, steps = OBJECTIVES[config.train.objective](ingredients)
    store = CheckpointStore(place.run_dir, config.train.keep_checkpoints)
    start, state = resume(store, place, tell)
    engine = make_engine(module, state)
    hooks = Silence()
    if place.rank == 0:
        about = {"base_fingerprint": fingerprint(base), "names": list(names)}
        hooks = Records(store, ModelWriter(config, spec, encoder.feature_dim, about), tell, start)
    tell({"phase": "training", "unit": steps.unit})
    train(engine, steps, table, config, hooks, validate if validation_tasks(config, suite) else None, start)


def encode_descriptions(
    config: RunConfig, place: Place, encoder: TextEncoder, texts: Sequence[str], tell: Tell
) -> DescriptionTable:
    """Each worker encodes its share; all read all of it."""
    work = place.shared_work("descriptions", config, config.condition, config.encoder.model_dump_json())
    work.do_share(
        texts,
        lambda chunk: ragged(encoder.encode(chunk)),
        lambda done, of: tell({"phase": f"encoding descriptions: {done:,} of {of:,}"}),
    )
    place.wait_for_all()
    return DescriptionTable.of_parts(work.parts(texts), place.device)


def resume(store: CheckpointStore, place: Place, tell: Tell) -> tuple[int, State | None]:
    """After which step to go on, and the state then; the first worker decides, as a checkpoint may be damaged."""
    step = 0
    if place.rank == 0:
        store.clear_leftovers()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step = store.newest() or 0
        for warning in caught:
            tell({"note": str(warning.message)})
    step = place.agree(step)
    return step, store.state(step) if step else None
