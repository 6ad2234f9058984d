"""Baseline LoRAs trained, saved and scored in one folder, which a second start goes on with."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from t2l.cluster.worker import build_spec
from t2l.config import RunConfig
from t2l.errors import ConfigError
from t2l.evaluation.conditions import Question
from t2l.evaluation.suite import Evaluation
from t2l.evaluation.table import write_json
from t2l.lora.apply import PerRowLora
from t2l.lora.peft_io import save_peft
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Task
from t2l.train.base import base_path, load_base
from t2l.train.lora import LoraTraining, train_loras

RESULTS_FILE = "results.json"

OnProgress = Callable[[int, int], None]
"""Called with steps done and in all."""


@dataclass(frozen=True)
class LoraJob:
    """One LoRA: the folder that it gets, the tasks that it is trained on and those that it is asked about."""

    name: str
    trained_on: Sequence[Task]
    asked_about: Sequence[Task]


class Baselines:
    """Trains and scores LoRAs on the base model of a run; `results` is what <folder>/results.json holds.

    Raises ConfigError if the folder holds results of other settings.
    """

    def __init__(self, run: RunConfig, settings: LoraTraining, inputs_per_task: int, folder: Path) -> None:
        self._settings, self._inputs, self._folder = settings, inputs_per_task, folder
        self._about = {**asdict(settings), "inputs_per_task": inputs_per_task, "base": run.base.path}
        self._by_task = self._finished()
        model, self._tokenizer = load_base(run.base, "cuda" if torch.cuda.is_available() else "cpu")
        self._base, self._base_name = PerRowLora(model, build_spec(run.lora, model.config)), base_path(run.base)

    @property
    def results(self) -> dict[str, Any]:
        """Means over tasks (all have equally many inputs), and each task's own scores."""
        scores = self._by_task.values()
        means = {key: mean(score[key] for score in scores) for key in ("exact_match", "rouge_l")}
        return {**means, "num_tasks": len(scores), "settings": self._about, "by_task": self._by_task}

    def run(self, jobs: Sequence[LoraJob], at_once: int, on_progress: OnProgress) -> None:
        """Do what is not done yet, `at_once` LoRAs in one batch; results are written after each batch."""
        left = [job for job in jobs if any(task.name not in self._by_task for task in job.asked_about)]
        left.sort(key=lambda job: len(job.trained_on[0].train[0].input))  # alike in length: little padding
        chunks = [left[start : start + at_once] for start in range(0, len(left), at_once)]
        for number, chunk in enumerate(chunks):
            before, of = number * self._settings.steps, len(chunks) * self._settings.steps
            weights = train_loras(
                self._base,
                self._tokenizer,
                [job.trained_on for job in chunk],
                self._settings,
                lambda done, loss, before=before, of=of: on_progress(before + done, of),
            )
            for index, job in enumerate(chunk):
                folder = self._folder / "adapters" / job.name.replace("/", "-")
                save_peft(weights, index, folder, self._base_name, overwrite=True)
                self._score(job.asked_about, weights.select([index]))
            write_json(self._folder / RESULTS_FILE, self.results)

    def _score(self, tasks: Sequence[Task], adapter: LoraWeights) -> None:
        evaluation = Evaluation(self._base, self._tokenizer, lambda texts: adapter)
        for task in tasks:
            examples = [task.test[i] for i in range(self._inputs)]
            score = evaluation.score([Question(task.name, e.input, e.output, task.name, None) for e in examples])
            self._by_task[task.name] = {"exact_match": score.exact_match, "rouge_l": score.rouge_l}

    def _finished(self) -> dict[str, dict[str, float]]:
        """Scores of an earlier start."""
        path = self._folder / RESULTS_FILE
        if not path.exists():
            return {}
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["settings"] != self._about:
            raise ConfigError(f"{path} was made with {known['settings']}, not {self._about}: choose another folder")
        return known["by_task"]
