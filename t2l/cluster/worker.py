"""What one worker does in a training run. No Ray here: the same code runs on one device without a cluster.

Everything is built in the worker from the config; no live model crosses a process boundary.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PretrainedConfig

from t2l.cluster.model_files import ModelWriter
from t2l.cluster.records import Records, Silence, Tell
from t2l.cluster.validate import Validator
from t2l.config import LoraConfig, RunConfig
from t2l.data.descriptions import DescriptionNumbers, DescriptionTable, SharedEncoding
from t2l.data.steps import SftSteps
from t2l.data.suite import build_suite
from t2l.hypernet.text_to_lora import build_model
from t2l.lora.apply import PerRowLora
from t2l.lora.spec import LoraSpec
from t2l.text.encoder import TextEncoder, build_encoder
from t2l.train.base import base_path, fingerprint, load_base
from t2l.train.engine import Engine
from t2l.train.loop import train
from t2l.train.state import CheckpointStore, Progress, State
from t2l.train.step import SftModule

MakeEngine = Callable[[SftModule, State | None], Engine]


@dataclass(frozen=True)
class Place:
    """Which worker of how many, on what device, writing where; and how workers wait for each other."""

    run_dir: Path
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    def wait_for_all(self) -> None:
        if self.world_size > 1:
            torch.distributed.barrier()

    def agree(self, number: int) -> int:
        """The first worker's number."""
        if self.world_size == 1:
            return number
        tensor = torch.tensor(number, device=self.device)
        torch.distributed.broadcast(tensor, src=0)
        return int(tensor)


def run_worker(config: RunConfig, place: Place, make_engine: MakeEngine, tell: Tell) -> Progress:
    """Train one run to its end, from its newest checkpoint if it has one, and return where it is then."""
    suite = build_suite(config.data)
    numbers = DescriptionNumbers.of(suite.train, config.data.num_descriptions)
    tell({"phase": "loading the base model"})
    base, tokenizer = load_base(config.base, place.device)
    steps = SftSteps(config, suite.train, numbers, tokenizer, place.rank, place.world_size)
    spec = build_spec(config.lora, base.config)
    encoder = build_encoder(config.encoder, base, tokenizer)
    table = encode_descriptions(config, place, encoder, numbers.texts(suite.train), tell)

    torch.manual_seed(config.seed)
    module = SftModule(PerRowLora(base, spec), build_model(config, spec, encoder.feature_dim), config.train)
    store = CheckpointStore(place.run_dir, config.train.keep_checkpoints)
    progress, state = resume(store, place, tell)
    engine = make_engine(module, state)
    validate = Validator(engine, encoder, tokenizer, suite.validation, config.train.validation_inputs)
    hooks = Silence()
    if place.rank == 0:
        write_model = ModelWriter(config, spec, encoder.feature_dim, fingerprint(base))
        hooks = Records(store, write_model, tell, progress)
    tell({"phase": "training", "step": progress.step})
    return train(engine, steps, table, config, hooks, validate, progress)


def build_spec(lora: LoraConfig, base_config: PretrainedConfig) -> LoraSpec:
    return LoraSpec.from_config(base_config, lora.target_modules, lora.rank, lora.alpha, lora.use_rslora, lora.dropout)


def encode_descriptions(
    config: RunConfig, place: Place, encoder: TextEncoder, texts: Sequence[str], tell: Tell
) -> DescriptionTable:
    """Each worker encodes its share; all read all of it."""
    key = f"{config.encoder.model_dump_json()} {base_path(config.base)} {config.base.dtype}"
    shared = SharedEncoding(place.run_dir / "descriptions", key, place.rank, place.world_size)
    shared.encode_share(texts, encoder, lambda done, of: tell({"phase": f"encoding descriptions: {done:,} of {of:,}"}))
    place.wait_for_all()
    return shared.load(texts, place.device)


def resume(store: CheckpointStore, place: Place, tell: Tell) -> tuple[Progress, State | None]:
    """Where to go on from; the first worker decides, as a checkpoint may be damaged."""
    progress = Progress()
    if place.rank == 0:
        store.clear_leftovers()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            progress = store.newest() or progress
        for warning in caught:
            tell({"note": str(warning.message)})
    step = place.agree(progress.step)
    if step == 0:
        return Progress(), None
    return store.progress(step), store.state(step)
