"""One input under several descriptions, side by side."""

from collections.abc import Sequence

from t2l.report.document import Cell, Section, Table
from t2l.tasks.freehand import read_input
from t2l.tasks.task import Task
from t2l.tasks.universe import Program, programs
from t2l.text_to_lora import TextToLora

_FAMILIES = 3
_DESCRIPTIONS = 8


def steering(t2l: TextToLora, tasks: Sequence[Task]) -> Section:
    """Held-out tasks of a family share their inputs, so each one's description can steer the model on the same one."""
    families: dict[str, list[Task]] = {}
    for task in tasks:
        families.setdefault(task.name.split("/")[0], []).append(task)
    largest = sorted(families, key=lambda family: -len(families[family]))[:_FAMILIES]
    text = "The prompt holds the input alone; each row's adapter is made from the description in unseen wording."
    return Section("Steering", text, [_table(t2l, family, families[family]) for family in largest])


def _table(t2l: TextToLora, family: str, tasks: Sequence[Task]) -> Table:
    given = tasks[0].test[0].input
    expected = {task.name: right_answer(task, given) for task in tasks}
    known = [task for task in tasks if expected[task.name] is not None] or list(tasks)
    chosen = known[:_DESCRIPTIONS]
    descriptions = [task.unseen_descriptions[0] for task in chosen]
    answers = t2l.run(descriptions, [given] * len(chosen))
    [alone] = t2l.run(descriptions[:1], [given], adapted=False)
    rows: list[list[Cell]] = [["(base model alone)", alone, None]]
    rows += [[d, answer, expected[task.name]] for d, answer, task in zip(descriptions, answers, chosen, strict=True)]
    columns = ["description", "answer", "right answer"]
    return Table(f"steering_{family.replace(' ', '_')}", f"Input: {given}", columns, rows)


def right_answer(task: Task, text: str) -> str | None:
    """What the universe's program answers to an input of its domain; None for tasks from elsewhere."""
    parts = task.name.split("/")
    program = Program(*parts) if len(parts) == 3 else None
    return program.apply(read_input(program.domain, text)) if program in programs() else None
