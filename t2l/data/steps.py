"""The batches of a run through the base model: item i is what one worker trains on in step i.

A step is a pure function of (seed, step, place in the step): one worker and many see the same samples, a resumed run
repeats what it would have seen, and loader processes may make steps ahead in any order.
"""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from t2l.config import RunConfig
from t2l.data.collate import Row, SftBatch, collate, cut_left, micro_batches
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.sampler import TaskSampler
from t2l.data.teacher import Taught, TeacherPool
from t2l.errors import ConfigError
from t2l.tasks.task import Task
from t2l.text.prompts import PromptFormat


class SftSteps(Dataset[list[SftBatch]]):
    """Maps a step to this worker's micro-batches; with a teacher, its answers take the place of the tasks' own.

    Raises ConfigError where the step is too small to be split so.
    """

    unit = "tokens"

    def __init__(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        numbers: DescriptionNumbers,
        tokenizer: PreTrainedTokenizerBase,
        rank: int = 0,
        world_size: int = 1,
        teacher: TeacherPool | None = None,
    ) -> None:
        train = config.train
        self._config, self._tasks, self._numbers, self._tokenizer = config, tasks, numbers, tokenizer
        self._chat, self._teacher = PromptFormat.of(tokenizer), teacher
        self._sampler = TaskSampler(len(tasks), config.seed, train.tasks_per_step, rank, world_size)
        self._pad_id = padding_id(tokenizer)
        if train.tasks_per_step // world_size * train.samples_per_task < train.micro_batches:
            raise ConfigError(
                f"train.micro_batches is {train.micro_batches}, more than a worker's samples in a step: lower it, "
                "or raise train.tasks_per_step or train.samples_per_task"
            )

    def __len__(self) -> int:
        return self._config.train.steps

    def __getitem__(self, step: int) -> list[SftBatch]:
        train = self._config.train
        rows = self._rows(step)
        parts = micro_batches(rows, train.micro_batches)
        return [collate(part, train.tasks_per_step * train.samples_per_task, self._pad_id) for part in parts]

    def loader(self, start: int, pin: bool) -> Iterator[list[SftBatch]]:
        """Steps from `start` to the end, in order; made by `data.loader_workers` processes, or in this one if 0."""
        workers = self._config.data.loader_workers
        return iter(
            DataLoader(
                self,
                batch_size=None,
                sampler=range(start, len(self)),
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                pin_memory=pin,
            )
        )

    def _rows(self, step: int) -> list[Row]:
        samples = self._config.train.samples_per_task
        drawn = [
            self._draw(random.Random(f"{self._config.seed}:{step}:{slot.place * samples + i}"), slot.task)
            for slot in self._sampler(step)
            for i in range(samples)
        ]
        prompts, answers, descriptions, teachers = zip(*drawn, strict=True)
        prompt_ids, answer_ids = self._ids(prompts), self._ids(answers)
        return [self._row(*parts) for parts in zip(prompt_ids, answer_ids, descriptions, teachers, strict=True)]

    def _row(self, prompt: list[int], answer: list[int], description: int, taught: Taught | None) -> Row:
        prompt = cut_left(prompt, self._config.data.max_prompt_tokens)
        if taught is not None:
            return Row(prompt, taught.answer, description, (taught.ids, taught.probs))
        return Row(prompt, cut_left(answer, self._config.data.max_response_tokens), description)

    def _draw(self, rng: random.Random, task_number: int) -> tuple[str, str, int, Taught | None]:
        """A sample: prompt, answer, the number of a freshly drawn description, and what the teacher says instead."""
        task, data, count = self._tasks[task_number], self._config.data, self._numbers.counts[task_number]
        taught = None
        if self._teacher is None:
            which = rng.randrange(count)
            number = which if self._config.condition == "input" else rng.randrange(len(task.train))
        else:
            number = rng.randrange(self._teacher.size)
            which = number % count
            if rng.random() >= self._teacher.sft_share:
                taught = self._teacher.look_up(task_number, number)
        example = task.train[number]
        shown = data.definition == "always" or (
            data.definition == "dropout" and rng.random() >= data.definition_dropout
        )
        prompt = self._chat.prompt(example.input, task.descriptions[which % len(task.descriptions)] if shown else None)
        return prompt, self._chat.answer(example.output), self._numbers.starts[task_number] + which, taught

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]  # type: ignore[return-value]


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to fill rows up with; which one does not matter, as nothing looks at it."""
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return 0 if pad is None else int(pad)  # type: ignore[arg-type]
