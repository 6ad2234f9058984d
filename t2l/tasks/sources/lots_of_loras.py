"""The hub's data sets Lots-of-LoRAs/task… (Brüel-Gabrielsson et al. 2024, https://arxiv.org/abs/2407.00066).

One a task of Super-NaturalInstructions, with the columns id, input and output. An input is a whole prompt: definition,
worked examples, and then what is asked about, which is all that we keep of it. Our prompts hold no definition.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from t2l.errors import DataError
from t2l.hub import find
from t2l.tasks.examples import example_of
from t2l.tasks.sources.numbered import NumberedTask
from t2l.tasks.sources.records import Records
from t2l.tasks.task import Example

ORGANISATION = "Lots-of-LoRAs"
MAX_EXAMPLES = 10_000
"""Of each task, as upstream."""
_OPENING, _ASKED, _INPUT, _OUTPUT = "Definition: ", "Now complete the following example -", "Input: ", "\nOutput:"
_WORKED = ("\n\nPositive Example ", "\n\nNegative Example ", f"\n\n{_ASKED}")


def read_lots_of_loras(names: Sequence[str], records: Records) -> list[NumberedTask]:
    """The tasks of these names, such as task363_sst2_polarity_classification, from --local-dir or the hub.

    Raises HubAccessError for one that is not there, DataError for one that is something else.
    """
    return [_read(name, records) for name in names]


def _read(name: str, records: Records) -> NumberedTask:
    data = _load(name)
    train, test = (_examples(data[split], f"{ORGANISATION}/{name}, {split}", records) for split in ("train", "test"))
    if not train or not test:
        raise DataError(f"{ORGANISATION}/{name} lacks good records in {'test' if train else 'train'}")
    definition = next(filter(None, map(_definition, data["train"]["input"])), "")
    if not definition:
        raise DataError(f"{ORGANISATION}/{name}: no 'input' begins with '{_OPENING}'")
    return NumberedTask(name, definition, records.untested(name, train, test), test)


def _load(name: str) -> Any:
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    data = load_dataset(find(f"{ORGANISATION}/{name}", kind="dataset"))
    lacking = [part for part in ("train", "test") if part not in data]
    lacking += [field for field in ("input", "output") if field not in data[next(iter(data))].column_names]
    if lacking:
        raise DataError(f"{ORGANISATION}/{name} lacks '{lacking[0]}': give splits train and test with input and output")
    return data


def _examples(rows: Iterable[dict[str, Any]], where: str, records: Records) -> tuple[Example, ...]:
    numbered = zip(range(MAX_EXAMPLES), rows, strict=False)
    return tuple(records.read(lambda item: _example(item[1], f"{where}[{item[0]}]"), numbered))


def _example(row: dict[str, Any], where: str) -> Example:
    """Raises DataError for an input that is no such prompt: its definition would stay in."""
    whole = example_of(row, where)
    _, marker, asked = whole.input.partition(_ASKED)
    asked = asked.strip().removeprefix(_INPUT).removesuffix(_OUTPUT).strip()
    if not marker or not asked:
        raise DataError(f"{where}: the field 'input' asks about nothing after '{_ASKED}'")
    return replace(whole, input=asked)


def _definition(prompt: object) -> str:
    """Empty if it is no such prompt."""
    if not isinstance(prompt, str) or not prompt.startswith(_OPENING):
        return ""
    ends = [end for mark in _WORKED if (end := prompt.find(mark)) >= 0]
    return prompt[len(_OPENING) : min(ends, default=len(prompt))].strip()
