"""The methods that are held against each other: how each asks, and which text its adapters are made from."""

from dataclasses import dataclass

from t2l.tasks.task import Task

SHOTS = 3
REFINE_EXAMPLES = 8
_OF_UNSEEN = ("unseen", "shuffled")
"""Wordings that are held against each other, so they are asked about the same tasks."""


@dataclass(frozen=True)
class Method:
    """How a question is put.

    wordings: which texts describe the task (t2l/evaluation/questions.py); (None,) where no text does.
    condition: what an adapter is made from, as in t2l/text/conditioning.py, of which "one_hot" here just means the
        task's name and "static" one adapter for all; None: no adapter.
    definition: the description stands in the prompt. shots: worked examples in it.
    train_examples: how many of the task's training examples the method needs.
    slow: takes many times as long as the others.
    """

    name: str
    wordings: tuple[str | None, ...] = (None,)
    condition: str | None = None
    definition: bool = False
    shots: int = 0
    train_examples: int = 0
    slow: bool = False

    def applies_to(self, task: Task, wording: str | None) -> bool:
        """Whether the task has the examples and the wordings that are needed."""
        worded = wording not in _OF_UNSEEN or len(task.unseen_descriptions) > 0
        return worded and len(task.train) >= self.train_examples and _has_shots(task, self.shots)


def _has_shots(task: Task, number: int) -> bool:
    """Whether so many training inputs differ from each other, and from any input that is asked about."""
    inputs: set[str] = set()
    for k in range(len(task.train)):
        if len(inputs) > number:
            return True  # of which one may be the one that is asked about
        inputs.add(task.train[k].input)
    return len(inputs) > number or (len(inputs) == number and not any(test.input in inputs for test in task.test))


PROMPTS = (
    Method("base"),
    Method("definition", ("unseen", "seen"), definition=True),
    Method("few_shot", shots=SHOTS),
    Method("few_shot_definition", ("unseen",), definition=True, shots=SHOTS),
)
"""The base model alone."""

TRAINED = {
    "description": Method("t2l", ("unseen", "seen", "shuffled", "junk", "static"), "description"),
    "one_hot": Method("one_hot", condition="one_hot"),
    "input": Method("hyperdecoder", condition="input"),
    "static": Method("multitask", condition="static"),
}
"""What a checkpoint is called, by the condition that it was trained under."""

REFINED = Method("refined", ("unseen",), "one_hot", train_examples=REFINE_EXAMPLES, slow=True)
"""T2L's adapter of each task, fine-tuned on a few of its examples."""

ARROW = Method("arrow", slow=True)
"""A library of LoRAs routed between by PEFT, token by token: it has no one adapter a question."""

LIBRARY = (
    Method("oracle", condition="one_hot"),
    Method("average", condition="static"),
    Method("nearest", ("unseen",), "description"),
    ARROW,
)
"""What a library of LoRAs, one a task, can answer with."""

METHODS = {method.name: method for method in (*PROMPTS, *TRAINED.values(), REFINED, *LIBRARY)}
