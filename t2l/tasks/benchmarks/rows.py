"""How a record of each benchmark's hub schema is put: what fills the prompt's template, and what a right answer is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from t2l.errors import DataError

ANSWER_LINE = "# <answer>\n"
"""As in t2l/evaluation/pass_at_1.py: what stands above it runs before an answer."""
_OPTIONS = 4
_STEPS = "Let's think step by step."
_CODE, _END = "```python\n", "\n```"


@dataclass(frozen=True)
class Row:
    """A record, and where it stands, for errors; problem: why there is no record."""

    values: Mapping[str, Any]
    where: str
    problem: str | None = None

    def __getitem__(self, field: str) -> Any:
        """Raises DataError if it is missing, or None."""
        if self.problem is not None:
            raise DataError(f"{self.where} {self.problem}")
        if self.values.get(field) is None:
            raise DataError(f"{self.where} lacks the field '{field}'")
        return self.values[field]

    def text(self, field: str) -> str:
        """Raises DataError for a field that is missing or no text."""
        if not isinstance(self[field], str) or not self[field].strip():
            raise self.wrong(field, "text")
        return self[field]

    def texts(self, field: str) -> list[str]:
        """Raises DataError for a field that is missing or no list of texts."""
        if not isinstance(self[field], list) or not all(isinstance(text, str) for text in self[field]):
            raise self.wrong(field, "a list of texts")
        return self[field]

    def label(self, field: str, labels: list[str]) -> str:
        """One of some labels; numbers may be written as such."""
        if (label := str(self[field]).strip()) not in labels:
            raise self.wrong(field, f"one of {', '.join(labels)}")
        return label

    def wrong(self, field: str, wanted: str) -> DataError:
        return DataError(f"{self.where}: the field '{field}' is {self[field]!r:.80}, not {wanted}")


@dataclass(frozen=True)
class Item:
    """fields: fill the template. output: a right answer, from its first word. prefill: its beginning, which the prompt
    gives. reference: what an answer is graded against.
    """

    fields: dict[str, Any]
    output: str
    reference: str
    prefill: str = ""


def _labelled(fields: dict[str, Any], labels: list[str], texts: list[str], right: str, before: str = "") -> Item:
    options = "\n".join(f"{before}{label}: {text}" for label, text in zip(labels, texts, strict=True))
    return Item({**fields, "options": options}, right, right)


def _with_choices(row: Row, question: str) -> Item:
    choices = Row(row["choices"], f"{row.where}, choices") if isinstance(row["choices"], dict) else None
    if choices is None or len(choices.texts("label")) != len(choices.texts("text")):
        raise row.wrong("choices", "as many labels as texts")
    labels, texts = choices.texts("label"), choices.texts("text")
    # The paper's template names four, always.
    missing = range(len(labels), _OPTIONS)
    names = [str(i + 1) if labels and labels[0].isdigit() else "ABCD"[i] for i in missing]
    padded = {"label": [*labels, *names], "text": [*texts, *("N/A" for _ in missing)]}
    fields = {question: row.text(question), "choices": padded}
    return _labelled(fields, labels, texts, row.label("answerKey", labels))


def _boolq(row: Row) -> Item:
    right = row.label("answer", ["True", "False"]).lower()
    return Item({"passage": row.text("passage"), "question": row.text("question")}, right, right)


def _gsm8k(row: Row) -> Item:
    answer = row.text("answer")
    if "####" not in answer:
        raise row.wrong("answer", "a solution that ends in #### and the result")
    return Item({"question": row.text("question")}, f"{_STEPS} {answer}", answer, _STEPS)


def _hellaswag(row: Row) -> Item:
    endings = row.texts("endings")
    labels = [str(i) for i in range(len(endings))]
    fields = {"ctx": row.text("ctx"), "endings": endings}
    return _labelled(fields, labels, endings, row.label("label", labels))


def _piqa(row: Row) -> Item:
    fields = {name: row.text(name) for name in ("goal", "sol1", "sol2")}
    labels = ["0", "1"]
    return _labelled(fields, labels, [fields["sol1"], fields["sol2"]], row.label("label", labels))


def _winogrande(row: Row) -> Item:
    fields = {name: row.text(name) for name in ("sentence", "option1", "option2")}
    labels = ["1", "2"]
    texts = [fields["option1"], fields["option2"]]
    return _labelled(fields, labels, texts, row.label("answer", labels), "Option ")


def _humaneval(row: Row) -> Item:
    """The answer goes on from the prompt: a function's head and documentation."""
    prompt = row.text("prompt")
    prefill = f"{_CODE}{prompt.strip()}"
    tests = f"{row.text('test')}\n\ncheck({row.text('entry_point')})\n"
    output = f"{prefill}\n{row.text('canonical_solution').rstrip()}{_END}"
    return Item({"prompt": prompt.strip()}, output, f"{prompt}\n{ANSWER_LINE}{tests}", prefill)


def _mbpp(row: Row) -> Item:
    tests = row.texts("test_list")
    if not tests:
        raise row.wrong("test_list", "a list of tests")
    fields = {"prompt": row.text("prompt"), "assertions": "\n".join(tests)}
    program = "\n".join([*row.texts("test_imports"), *tests])
    return Item(fields, f"{_CODE}{row.text('code').strip()}{_END}", program, _CODE)


READERS: dict[str, Callable[[Row], Item]] = {
    "arc": lambda row: _with_choices(row, "question"),
    "openbookqa": lambda row: _with_choices(row, "question_stem"),
    "boolq": _boolq,
    "gsm8k": _gsm8k,
    "hellaswag": _hellaswag,
    "piqa": _piqa,
    "winogrande": _winogrande,
    "humaneval": _humaneval,
    "mbpp": _mbpp,
}
