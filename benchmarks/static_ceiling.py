"""How right can an adapter be that does not know the task? The ceiling of base model and multi-task LoRA without a
definition.

    python benchmarks/static_ceiling.py --out benchmarks/results/static_ceiling.json

For each input of a held-out task, the best guess without its description is the answer that most training tasks of the
same domain would give. Tasks of a domain share their inputs, so nothing in the input says which task is meant.
"""

import random
from collections import Counter, defaultdict

from harness import finish, head, make_parser

from t2l.tasks.universe import Program, full_splits
from t2l.tasks.vocabulary import Input


def likeliest(programs: list[Program], given: Input) -> str:
    """What most of them answer."""
    answers = Counter(answer for program in programs if (answer := program.apply(given)) is not None)
    return answers.most_common(1)[0][0]


def draw(program: Program, number: int) -> list[Input]:
    rng = random.Random(program.name)
    return [program.draw_input(rng) for _ in range(number)]


def ceiling(split: str, inputs: int) -> float:
    """Share of inputs of a split's tasks, `inputs` each, for which the commonest answer is the right one."""
    splits = full_splits()
    known = defaultdict(list)
    for program in splits["train"]:
        known[program.domain].append(program)
    right = [
        likeliest(known[program.domain], given) == program.apply(given)
        for program in splits[split]
        for given in draw(program, inputs)
    ]
    return sum(right) / len(right)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--inputs", type=int, default=50, help="of each task (default 50)")
    arguments = parser.parse_args()
    result = head("static_ceiling", inputs_per_task=arguments.inputs)
    names = {"held_out": "test", "novel": "novel"}
    found = {name: ceiling(split, arguments.inputs) for name, split in names.items()}
    finish(result | {"exact_match": found}, arguments.out)


if __name__ == "__main__":
    main()
