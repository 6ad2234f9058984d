"""Text scorers on hand-made cases, on any text, and on the gold answers of GSM8K."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2l.errors import DataError
from t2l.evaluation.scorers import SCORERS, choice, exact_match, number, rouge_l, true_false
from t2l.tasks.task import Task

GSM8K = Path(__file__).parents[3] / "shared/data/gsm8k/test.jsonl"

TEXT = st.text(max_size=60)
ANSWER = st.one_of(TEXT, st.text("AIab().,:-$#%/ 0123456789\n'", max_size=30), st.just("the answer is (C)"))


def test_the_metric_of_a_task_is_a_scorer() -> None:
    assert SCORERS[Task("t", [], [], [], []).metric] is exact_match


def test_exact_match_forgives_only_outer_white_space() -> None:
    assert exact_match(" CAT, DOG\n", "CAT, DOG") == 1
    assert exact_match("CAT,DOG", "CAT, DOG") == 0
    assert exact_match("cat", "CAT") == 0


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("the cat sat", "the cat sat", 1),
        ("the cat sat", "the dog sat", 2 / 3),
        ("sat cat the", "the cat sat", 1 / 3),
        ("cat", "the cat sat on it", 1 / 3),  # precision 1, recall 1/5
        ("cat.", "cat", 2 / 3),
        ("", "cat", 0),
        ("", " ", 1),
    ],
)
def test_rouge_l(answer: str, reference: str, score: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(score)


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        " b ",
        "(b)",
        "[B]",
        "**B**",
        "'B'",
        "B.",
        "B) because plants need light",
        "B because plants need light",
        "B\nQuestion: what is a cat? A",
        "The answer is B.",
        "the correct answer is: (b), I think",
        "Answer: B",
        "Answer: option B",
        "The answer is **B** and not C.",
        "A good first guess is that the answer is A. But no, the answer is B.",
        "A plant needs light, so I choose B.",
        "I think it is (B).",
        "Option B is right",
        r"Hence $\boxed{B}$",
    ],
)
def test_choice_finds_the_letter(answer: str) -> None:
    assert choice(answer, "B") == choice(answer, "(b)") == 1
    assert choice(answer, "A") == choice(answer, "C") == 0


@pytest.mark.parametrize(
    "answer",
    ["1", "`1`", "(1)", "1: a man, who has 2 dogs", "1 he rides on", "Option 1", "The answer is 1.", "It is (1)"],
)
def test_labels_may_be_digits(answer: str) -> None:
    assert choice(answer, "1") == 1
    assert choice(answer, "2") == choice(answer, "0") == choice(answer, "A") == 0


@pytest.mark.parametrize("answer", ["", "10", "1.5 litres", "A", "one", "he has 1 dog", "Option 1 or option 2"])
def test_not_every_digit_is_a_label(answer: str) -> None:
    assert choice(answer, "1") == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("True", "true"), ("`false`", "false"), ("false, since it rains", "false"), ("Yes, it is", "true"),
        ("no", "false"), ("The statement is true.", "true"), ("That is not true", "false"), ("not false", "true"),
        ("true or false", ""),
        ("It has no name", ""), ("", ""), ("untrue", ""), ("1", ""),
    ],
)  # fmt: skip
def test_true_false(answer: str, said: str) -> None:
    assert [true_false(answer, reference) for reference in ("true", "false")] == [said == "true", said == "false"]


@pytest.mark.parametrize(
    "answer", ["A", "(a)", "A. dog", "a) dog", "A is right", "A because it barks", "The answer is A"]
)
def test_choice_can_be_a(answer: str) -> None:
    assert choice(answer, "A") == 1


@pytest.mark.parametrize(
    "answer",
    [
        "A dog barks.",
        "I think so",
        "I'm not sure",
        "A-level",
        "The answer is a dog",
        "The answer is A dog",
        "a cat",
        "e.g. something",
        "vitamin C",
        "It might be (B) or (C).",
        "because",
        "",
    ],
)
def test_choice_reads_no_letter_into_prose(answer: str) -> None:
    assert all(choice(answer, letter) == 0 for letter in "ABCDEI")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("42", "42"),
        ("42.", "#### 42"),
        ("Half of 84 is 42", "42.0"),
        ("#### 42\n\nQuestion: 7 ducks have 14 legs", "42"),
        ("3 + 4 = 7 ####", "7"),
        ("It costs $1,234.50.", "1234.5"),
        ("That makes 1,450,000 people", "#### 1,450,000"),
        ("16-3=13 and 13-3 is 16-6", "6"),
        ("-7", "#### -7"),
        ("It falls to −7 degrees", "-7"),
        ("a loss of -$5", "-5"),
        ("a loss of $-5", "-5"),
        ("between 3-5", "5"),
        ("about 3/4 of it", "0.75"),
        ("50%", "50"),
        ("$.50", "0.5"),
        ("the answer is...5", "5"),
        ("1, 2, 3", "3"),
        ("042", "42"),
        ("0", "-0"),
        ("9" * 5000, "9" * 5000),
        (r"\boxed{18}", "18"),
    ],
)
def test_numbers_that_are_equal(answer: str, reference: str) -> None:
    assert number(answer, reference) == 1


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("42", "-42"),
        ("42", "43"),
        ("4.2", "42"),
        ("42 of 50", "42"),
        ("50%", "0.5"),
        ("", "0"),
        ("forty-two", "42"),
        ("1" * 40 + "2", "1" * 40 + "3"),
    ],
)
def test_numbers_that_differ(answer: str, reference: str) -> None:
    assert number(answer, reference) == 0


def test_references_that_a_scorer_cannot_use() -> None:
    with pytest.raises(DataError, match="label"):
        choice("B", "because")
    with pytest.raises(DataError, match="no number"):
        number("42", "forty-two")


@given(ANSWER, TEXT)
def test_text_scores_are_shares_and_a_text_matches_itself(answer: str, reference: str) -> None:
    assert 0 <= rouge_l(answer, reference) <= 1
    assert rouge_l(answer, reference) == pytest.approx(rouge_l(reference, answer))
    assert exact_match(answer, reference) <= rouge_l(answer, reference)
    assert exact_match(answer, answer) == rouge_l(answer, answer) == 1


@given(ANSWER, st.sampled_from("ABCDEFGHIJ"))
def test_any_answer_picks_at_most_one_letter(answer: str, letter: str) -> None:
    assert choice(letter, letter) == choice(f"({letter.lower()})", letter) == 1
    assert sum(choice(answer, other) for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZ") in (0, 1)


@given(ANSWER, st.integers(), st.integers(0, 999))
def test_a_number_is_read_however_it_is_written(answer: str, whole: int, thousandths: int) -> None:
    plain = f"{whole}.{thousandths:03}"
    assert number(f"so it is ${whole:,}.{thousandths:03}.", plain) == 1
    assert number(f"#### {plain}\n{answer}", plain) == 1
    assert number(answer, plain) in (0, 1)


@pytest.mark.skipif(not GSM8K.exists(), reason=f"no GSM8K at {GSM8K}")
def test_gold_answers_of_gsm8k() -> None:
    golds = [json.loads(line)["answer"] for line in GSM8K.read_text().splitlines()[:200]]
    finals = [gold.rpartition("#### ")[2] for gold in golds]
    assert len(golds) == 200
    for gold, final in zip(golds, finals, strict=True):
        assert number(gold, gold) == number(gold, final) == number(f"The answer is ${final}.", gold) == 1
        assert number(f"{gold}1", final) == 0
