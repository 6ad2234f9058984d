"""How much faster the evaluation answers than one adapter at a time through PEFT: the same adapters, the same answers.

    python benchmarks/evaluate_peft.py --out benchmarks/results/evaluate_cpu.json
    python benchmarks/evaluate_peft.py --device cuda --tasks 12 --inputs 8 --out benchmarks/results/evaluate_h200.json

Both start from one PEFT folder for each description, made by the shipped checkpoint beforehand, and end with answers to
inputs of held-out tasks; 8 descriptions of each task take turns, so that 8 inputs a task are one an adapter.

ours: as jobs/evaluate.py answers: all folders are read, and rows of all adapters are answered in common batches.
peft: each adapter is loaded into one PeftModel, answers all of its inputs in one batch of `generate`, and is deleted.

`whole` adds to both sides what the hypernetwork takes to make the adapters. Both sides run in this process, with the
same dtype and device.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from harness import finish, head, make_parser, timed
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t2l import TextToLora
from t2l.evaluation.methods import TRAINED
from t2l.evaluation.questions import Question, questions
from t2l.evaluation.scorers import exact_match
from t2l.evaluation.suite import Evaluation
from t2l.lora.library import Library
from t2l.lora.peft_io import save_peft
from t2l.tasks.universe import universe
from t2l.text.prompts import PromptFormat
from t2l.train.base import load_base


def make_library(t2l: TextToLora, descriptions: Sequence[str], folder: Path) -> float:
    """A PEFT folder for each description; gives the seconds that making the adapters took."""
    seconds, weights = timed(lambda: t2l.generate(descriptions).weights.to("cpu"))
    for number in range(len(descriptions)):
        save_peft(weights, number, folder / str(number), t2l.origin.base)
    return seconds


def peft_answers(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question], folder: Path
) -> list[str]:
    """One adapter after another; `base` is as before afterwards."""
    chat = PromptFormat.of(tokenizer)
    longest = max(len(tokenizer(question.answer)["input_ids"]) for question in asked) + 4
    answers = [""] * len(asked)
    names = list(dict.fromkeys(question.key or "" for question in asked))
    model = PeftModel.from_pretrained(base, str(folder / names[0]), adapter_name=names[0])
    for before, name in pairwise([names[0], *names]):
        if name != before:
            model.load_adapter(str(folder / name), adapter_name=name)
            model.set_adapter(name)
            model.delete_adapter(before)
        places = [place for place, question in enumerate(asked) if question.key == name]
        prompts = [chat.prompt(asked[place].input) for place in places]
        found = generate(model, tokenizer, prompts, longest)
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    model.unload()
    return answers


def generate(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int
) -> list[str]:
    """transformers' own greedy generation of one batch."""
    inputs = tokenizer(list(prompts), padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
    output = model.generate(**inputs.to(model.device), max_new_tokens=max_new_tokens, do_sample=False)
    new = output[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def compare(tasks: int, inputs: int, device: str) -> dict[str, Any]:
    t2l = TextToLora.from_pretrained(device=device)
    described = questions(TRAINED["description"], "unseen", universe(None).test[:tasks], inputs)
    descriptions = list(dict.fromkeys(question.key or "" for question in described))
    place = {text: str(number) for number, text in enumerate(descriptions)}
    asked = [replace(question, key=place[question.key or ""]) for question in described]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_library(t2l, descriptions[:1], folder / "warm-up")
        generating = make_library(t2l, descriptions, folder)
        library, data = Library.open(folder), t2l.config.data
        evaluation = Evaluation(t2l.base, t2l.tokenizer, lambda keys: library.weights(keys, t2l.base.spec), data)
        evaluation.answer(asked[:8])
        base, tokenizer = load_base(t2l.config.base, device)
        peft_answers(base, tokenizer, asked[:1], folder)
        our_seconds, ours = timed(lambda: evaluation.answer(asked))
        peft_seconds, peft = timed(lambda: peft_answers(base, tokenizer, asked, folder))
    return {
        "tasks": tasks,
        "inputs": inputs,
        "questions": len(asked),
        "adapters": len(descriptions),
        "seconds": {"ours": our_seconds, "peft": peft_seconds, "generating": generating},
        "scores": {"ours": _score(asked, ours), "peft": _score(asked, peft)},
        "same_answers": mean(a == b for a, b in zip(ours, peft, strict=True)),
        "ratio": peft_seconds / our_seconds,
        "ratio_whole": (peft_seconds + generating) / (our_seconds + generating),
    }


def _score(asked: Sequence[Question], answers: Sequence[str]) -> float:
    return mean(exact_match(answer, question.answer) for question, answer in zip(asked, answers, strict=True))


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__, device=True)
    parser.add_argument("--tasks", type=int, default=16, help="held-out tasks (default 16)")
    parser.add_argument("--inputs", type=int, nargs="+", default=[8, 20], help="inputs of each (default 8, then 20)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    result = head("evaluate_peft", arguments.device)
    results = [compare(arguments.tasks, inputs, arguments.device) for inputs in arguments.inputs]
    finish(result | {"results": results}, arguments.out)


if __name__ == "__main__":
    main()
