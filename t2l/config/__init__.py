"""Settings of a run: frozen pydantic models that refuse unknown fields. Imports neither torch nor ray."""

from t2l.config.data import (
    AnyDataConfig,
    BenchmarksConfig,
    DataConfig,
    JsonlConfig,
    LotsOfLorasConfig,
    NaturalInstructionsConfig,
    SubUniverseConfig,
    UniverseConfig,
)
from t2l.config.dump import dump_config
from t2l.config.load import load_config, load_pretrain_config, parse_config
from t2l.config.model import BaseConfig, EncoderConfig, HypernetConfig, LoraConfig, PretrainConfig, ReaderConfig
from t2l.config.run import ClusterConfig, Condition, RunConfig
from t2l.config.train import AnyTrainConfig, DistillConfig, ReconConfig, SftConfig, ThroughBaseConfig, TrainConfig

__all__ = [
    "AnyDataConfig",
    "AnyTrainConfig",
    "BaseConfig",
    "BenchmarksConfig",
    "ClusterConfig",
    "Condition",
    "DataConfig",
    "DistillConfig",
    "EncoderConfig",
    "HypernetConfig",
    "JsonlConfig",
    "LoraConfig",
    "LotsOfLorasConfig",
    "NaturalInstructionsConfig",
    "PretrainConfig",
    "ReaderConfig",
    "ReconConfig",
    "RunConfig",
    "SftConfig",
    "SubUniverseConfig",
    "ThroughBaseConfig",
    "TrainConfig",
    "UniverseConfig",
    "dump_config",
    "load_config",
    "load_pretrain_config",
    "parse_config",
]
