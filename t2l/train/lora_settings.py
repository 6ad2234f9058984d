"""How plain LoRAs are trained. Light, so that commands can name the settings without torch."""

from dataclasses import dataclass, fields

from t2l.errors import ConfigError

_MAY_BE_ZERO = ("warmup_fraction", "weight_decay", "seed")


@dataclass(frozen=True)
class LoraTraining:
    """How each adapter is trained; `rows` samples a step.

    The defaults are for refining what a hypernetwork made. Raises ConfigError for a number that must be positive.
    """

    steps: int = 100
    rows: int = 8
    lr: float = 1e-3
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name not in _MAY_BE_ZERO):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be more than 0")


@dataclass(frozen=True)
class OracleTraining(LoraTraining):
    """Training from scratch that stops early.

    The last `validation_examples` of a task's training examples are never trained on. Their loss is taken every
    `eval_every` steps; `patience` times in a row without a better one ends the training, and the best weights are kept.
    Raises ConfigError unless training ends with an evaluation.
    """

    steps: int = 250
    lr: float = 5e-3
    eval_every: int = 25
    patience: int = 3
    validation_examples: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps % self.eval_every:
            raise ConfigError(f"steps is {self.steps}, no multiple of eval_every {self.eval_every}: change either")
