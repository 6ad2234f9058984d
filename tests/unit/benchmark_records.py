"""A few records of each benchmark in its hub's schema. The texts are ours, in the benchmarks' manner."""

from typing import Any

Record = dict[str, Any]


def _choices(texts: list[str], labels: str = "ABCD") -> Record:
    return {"text": texts, "label": list(labels[: len(texts)])}


_SCIENCE = ["a hot stove", "a cold window", "a dark cave", "a quiet room"]

TRAIN: dict[str, list[Record]] = {
    "arc_challenge": [
        {"id": f"t{i}", "question": f"Where does ice number {i} melt?", "choices": _choices(_SCIENCE), "answerKey": "A"}
        for i in range(4)
    ],
    "boolq": [
        {"question": f"is lake {i} deep", "passage": f"Lake {i} is shallow.", "answer": i % 2 == 0} for i in range(4)
    ],
    "gsm8k": [
        {"question": f"Ann has {i} pens and buys 2. How many?", "answer": f"{i} + 2 = <<{i}+2={i + 2}>>\n#### {i + 2}"}
        for i in range(4)
    ],
    "hellaswag": [
        {
            "ind": i, "activity_label": "Baking", "ctx_a": f"Cook {i} opens an oven.", "ctx_b": "she",
            "ctx": f"Cook {i} opens an oven. she", "endings": ["swims.", "takes out bread.", "flies.", "is a dog."],
            "source_id": "x", "split": "train", "split_type": "indomain", "label": "1",
        }
        for i in range(4)
    ],
    "openbookqa": [
        {"id": f"o{i}", "question_stem": f"Animal {i} breathes", "choices": _choices(["air", "tin"]), "answerKey": "A"}
        for i in range(4)
    ],
    "piqa": [{"goal": f"Open jar {i}.", "sol1": "Hit it.", "sol2": "Turn the lid.", "label": 1} for i in range(4)],
    "winogrande": [
        {"sentence": f"Ball {i} fell off the shelf as the _ was steep.", "option1": "shelf", "option2": "ball",
         "answer": "1"}
        for i in range(4)
    ],
    "mbpp": [
        {
            "source_file": "x", "task_id": i, "prompt": f"Write a function to add {i} to a number.",
            "code": f"def add_{i}(x):\n    return x + {i}", "test_imports": [],
            "test_list": [f"assert add_{i}(1) == {i + 1}"],
        }
        for i in range(4)
    ],
}  # fmt: skip
TRAIN["arc_easy"] = TRAIN["arc_challenge"]

TEST: dict[str, list[Record]] = {
    "arc_challenge": [
        {"id": "1", "question": "Which warms a room?", "choices": _choices(_SCIENCE), "answerKey": "A"},
        {"id": "2", "question": "What is solid?", "choices": _choices(["ice", "fog", "air"], "123"), "answerKey": "1"},
        {"id": "3", "question": "Pick one.", "choices": _choices([*"vwxyz"], "ABCDE"), "answerKey": "E"},
    ],
    "arc_easy": [{"id": "4", "question": "What shines?", "choices": _choices(["sun", "mud"]), "answerKey": "A"}],
    "boolq": [
        {"question": "can a whale fly", "passage": "A whale is a mammal that swims.", "answer": False},
        {"question": "can a whale swim", "passage": "A whale is a mammal that swims.", "answer": True},
    ],
    "gsm8k": [{"question": "Tom reads 1,000 pages twice.", "answer": "2 * 1000 = <<2*1000=2000>>\n#### 2,000"}],
    "hellaswag": [
        {
            "ind": 9, "activity_label": "Rowing", "ctx_a": "A man sits in a boat.", "ctx_b": "he",
            "ctx": "A man sits in a boat. he", "endings": ["eats it.", "bakes.", "rows {fast}.", "is a lake."],
            "source_id": "x", "split": "val", "split_type": "zeroshot", "label": "2",
        }
    ],
    "openbookqa": [
        {"id": "7", "question_stem": "Rain makes a field", "choices": _choices(["wet", "loud", "red", "old"]),
         "answerKey": "A"}
    ],
    "piqa": [{"goal": "Dry a plate.", "sol1": "Use a towel.", "sol2": "Use a spoon.", "label": 0}],
    "winogrande": [
        {"sentence": "The cup is not in the box because the _ is too big.", "option1": "box", "option2": "cup",
         "answer": "2"}
    ],
    "humaneval": [
        {
            "task_id": "HumanEval/0",
            "prompt": 'from typing import List\n\n\ndef evens(xs: List[int]) -> List[int]:\n    """The even ones.\n'
            '    >>> evens([1, 2])\n    [2]\n    """\n',
            "canonical_solution": "    return [x for x in xs if x % 2 == 0]\n",
            "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == [2]\n"
            "    assert candidate([]) == []\n",
            "entry_point": "evens",
        }
    ],
    "mbpp": [
        {
            "source_file": "x", "task_id": 11, "prompt": "Write a function to find the area of a circle.",
            "code": "import math\ndef area(r):\n    return math.pi * r * r", "test_imports": ["import math"],
            "test_list": ["assert area(0) == 0", "assert math.isclose(area(2), 4 * math.pi)"],
        }
    ],
}  # fmt: skip
