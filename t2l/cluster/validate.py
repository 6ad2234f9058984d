"""Validation during training: a checkpoint folder in, its score out. No Ray here.

Which checkpoint a run ends with hangs on this alone, so it sees neither test tasks nor wording that training lacks.
"""

import time
from collections.abc import Sequence

from t2l.cluster.records import Tell, plot
from t2l.config import RunConfig
from t2l.data.suite import build_suite
from t2l.evaluation.methods import TRAINED
from t2l.evaluation.questions import questions
from t2l.evaluation.records import Head, Record
from t2l.evaluation.suite import Evaluation
from t2l.tasks.task import Task, TaskSuite
from t2l.text_to_lora import Frozen, TextToLora
from t2l.train.state import CheckpointStore
from t2l.train.validations import Validation

_KNOWN_TASKS = 60


def validation_tasks(config: RunConfig, suite: TaskSuite) -> Sequence[Task]:
    """The tasks that choose a run's checkpoint; where the suite holds none back or no inputs are asked for, none.

    Those that no step trains on; but a one-hot code stands for tasks that were, so it is asked about some of these.
    """
    if not config.train.validation_inputs:
        return ()
    return suite.train[:_KNOWN_TASKS] if config.condition == "one_hot" else suite.validation


def evaluate(t2l: TextToLora, tasks: Sequence[Task]) -> Record:
    """What a checkpoint scores on test examples of tasks, described as in training."""
    start = time.perf_counter()
    method = TRAINED[t2l.config.condition]
    wording = "seen" if "seen" in method.wordings else None
    data = t2l.config.data
    asked = questions(method, wording, tasks, t2l.config.train.validation_inputs, run_code=data.run_code)
    graded = Evaluation(t2l.base, t2l.tokenizer, lambda keys: t2l.generate(keys).weights, data).grade(asked)
    head = Head(method=method.name, wording=wording, split="validation")
    return Record.of(head, graded, time.perf_counter() - start)


class Validator:
    """Called with a step, validates its checkpoint and writes that down. Keeps the base model for the next one."""

    def __init__(self, store: CheckpointStore, device: str, tell: Tell) -> None:
        self._store, self._device, self._tell = store, device, tell
        self._frozen: Frozen | None = None

    def __call__(self, step: int) -> Validation:
        start = time.perf_counter()
        self._store.fetch(step)
        t2l = TextToLora.from_pretrained(self._store.path(step), self._device, self._frozen)
        self._frozen = t2l.base, t2l.tokenizer
        record = evaluate(t2l, validation_tasks(t2l.config, build_suite(t2l.config.data)))
        validation = Validation(step, record.score, record.scores, time.perf_counter() - start)
        self._store.validations.write(validation)
        plot(self._store.run_dir, validation)
        own = f"validation/{self._store.validations.path(step).name}"  # others here may be of a run before
        self._store.copy.push(own, "tensorboard/validation/")
        self._tell({"validated": step, "validation": record.score})
        return validation
