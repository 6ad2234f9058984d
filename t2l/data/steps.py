"""The batches of a run through the base model: item i is what one worker trains on in step i.

A step is a pure function of (seed, step, place in the step): one worker and many see the same samples, a resumed run
repeats what it would have seen, and loader processes may make steps ahead in any order.
"""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from t2l.config import RunConfig
from t2l.data.cache import Caches
from t2l.data.collate import Row, SftBatch, collate, micro_batches
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.sampler import TaskSampler, check_shares
from t2l.data.teacher import Taught, TeacherPool
from t2l.data.tokens import Text, Tokenizing, Tokens
from t2l.tasks.task import Task
from t2l.text.prompts import PromptFormat


class SftSteps(Dataset[list[SftBatch]]):
    """Maps a step to this worker's micro-batches; with a teacher, its answers take the place of the tasks' own.

    caches: where the tokens of finite tasks are kept for all runs.
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
        caches: Caches | None = None,
    ) -> None:
        train = config.train
        self._config, self._tasks, self._numbers = config, tasks, numbers
        finite = any(is_finite(task) for task in tasks)
        self._tokens = Tokenizing(tokenizer, config.data, caches if finite else None)
        self._chat, self._teacher = PromptFormat.of(tokenizer), teacher
        self._sampler = TaskSampler(len(tasks), config.seed, train.tasks_per_step, rank, world_size)
        self._pad_id = padding_id(tokenizer)
        check_shares(train, world_size)

    def __len__(self) -> int:
        return self._config.train.steps

    def __getitem__(self, step: int) -> list[SftBatch]:
        train = self._config.train
        rows = self._rows(step)
        parts = micro_batches(rows, train.micro_batches)
        if step >= len(self) - max(1, self._config.data.loader_workers):
            self._tokens.flush()  # the last step of this loader process
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
        texts, descriptions, teachers = zip(*drawn, strict=True)
        return [self._row(*parts) for parts in zip(self._tokens(texts), descriptions, teachers, strict=True)]

    def _row(self, tokens: Tokens, description: int, taught: Taught | None) -> Row:
        if taught is not None:
            return Row(tokens.prompt, taught.answer, description, (taught.ids, taught.probs))
        return Row(tokens.prompt, tokens.answer, description)

    def _draw(self, rng: random.Random, task_number: int) -> tuple[Text, int, Taught | None]:
        """A sample: prompt and answer, the number of a freshly drawn description, and what the teacher says instead."""
        task, data, count = self._tasks[task_number], self._config.data, self._numbers.counts[task_number]
        from_input, taught = self._config.condition == "input", None  # then the texts are those of the first examples
        if self._teacher is None:
            which = rng.randrange(count)
            number = which if from_input else rng.randrange(len(task.train))
        else:
            size = self._teacher.sizes[task_number]
            number = rng.randrange(min(size, count) if from_input else size)
            which = number % count
            if rng.random() >= self._teacher.sft_share:
                taught = self._teacher.look_up(task_number, number)
        example = task.train[number]
        shown = data.definition == "always" or (
            data.definition == "dropout" and rng.random() >= data.definition_dropout
        )
        prompt = self._chat.prompt(example.input, task.descriptions[which % len(task.descriptions)] if shown else None)
        text = Text(prompt, self._chat.answer(example.output), comes_again=is_finite(task) and not shown)
        return text, self._numbers.starts[task_number] + which, taught


def is_finite(task: Task) -> bool:
    """Whether its examples are a list, not drawn afresh without end."""
    return isinstance(task.train, list | tuple)


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to fill rows up with; which one does not matter, as nothing looks at it."""
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return 0 if pad is None else int(pad)  # type: ignore[arg-type]
