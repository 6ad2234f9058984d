"""The 100 free-hand descriptions: written as people type, never trained on, each with its task and one worked input."""

import re
from importlib.resources import files

import yaml

from t2l.tasks.task import Example, Task
from t2l.tasks.universe import GeneratedExamples, Program
from t2l.tasks.vocabulary import ASPECTS, CITIES, DAYS, KEYS, OBJECTS, PEOPLE, PRAISE, Input


def free_hand_tasks() -> tuple[Task, ...]:
    """One task a description; its test examples begin with the hand-checked one."""
    entries = yaml.safe_load(files("t2l.tasks").joinpath("phrases", "freehand.yaml").read_text(encoding="utf-8"))
    return tuple(_task(number, entry) for number, entry in enumerate(entries))


def _task(number: int, entry: dict[str, str]) -> Task:
    program = Program(entry["domain"], entry["pick"], entry["render"])
    description = (entry["description"],)
    generated = GeneratedExamples(program, f"free hand {number}", 19)
    checked = Example(str(entry["input"]), str(entry["answer"]))
    return Task(
        f"{number}:{program.name}",
        description,
        description,
        (),
        (checked, *list(generated)),
    )


def read_input(domain: str, text: str) -> Input:
    """The parts of an input written as text, found from the text alone (the inverse of drawing one)."""
    if domain in ("words", "numbers", "mixed"):
        return Input(text, tuple(text.split(", ")))
    if domain == "letters":
        return Input(text, tuple(text))
    if domain == "record":
        return Input(text, slots=dict(re.findall(rf"({'|'.join(KEYS)}): (\w+)", text)))
    words = re.findall(r"\w+", text)
    if domain == "event":
        kinds = {"who": PEOPLE, "what": OBJECTS, "where": CITIES, "when": DAYS}
        slots = {slot: word for word in words for slot, known in kinds.items() if word in known}
        return Input(text, slots=slots | {"how_many": next(word for word in words if word.isdigit())})
    things = {thing: aspect for aspect, names in ASPECTS.items() for thing in names}
    verdicts = re.findall(r"the (\w+) was (\w+)", text)
    return Input(text, slots={things[thing]: "positive" if word in PRAISE else "negative" for thing, word in verdicts})
