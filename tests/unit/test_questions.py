"""What each method asks: prompts hold what they claim, adapters are made from what they should be."""

from itertools import pairwise

import pytest

from t2l.config.data import UniverseConfig
from t2l.data.suite import build_suite
from t2l.embedded import BASE_DIR
from t2l.errors import DataError
from t2l.evaluation.methods import METHODS, PROMPTS, SHOTS, TRAINED, Method
from t2l.evaluation.questions import NUM_WORDINGS, Question, questions
from t2l.tasks.freehand import free_hand_tasks
from t2l.tasks.task import Example, Task
from t2l.tasks.universe import universe
from t2l.text.prompts import PromptFormat

TASKS = universe(None).test[:6]
INPUTS = 20
CHAT = PromptFormat("<bos><user>", "<assistant>", "<end><user>", "<assistant>", "<end>")


def ask(method: str, wording: str | None = None, tasks: tuple[Task, ...] = TASKS) -> list[Question]:
    return questions(METHODS[method], wording, tasks, INPUTS)


def prompt(question: Question) -> str:
    return CHAT.prompt(question.input, question.definition, question.shots)


def small_task(*train: Example) -> Task:
    return Task("small", ("Say it.",), ("Say it, please.",), train, (Example("a", "A"),))


@pytest.mark.parametrize("method", PROMPTS, ids=lambda method: method.name)
def test_prompts_hold_exactly_the_definition_and_the_examples_that_they_claim(method: Method) -> None:
    for question in ask(method.name, method.wordings[0]):
        task = next(task for task in TASKS if task.name == question.task)
        user, *others = prompt(question).removeprefix("<bos><user>").split("<end><user>")
        turns = [turn.split("<assistant>") for turn in (user, *others)]
        assert len(turns) == 1 + method.shots
        definition = f"{question.definition}\n\n" if method.definition else ""
        assert turns[0][0].startswith(definition)
        turns[0][0] = turns[0][0].removeprefix(definition)
        assert turns[-1] == [question.input.strip(), ""], "the last one is asked, its answer is not shown"
        if method.definition:
            assert question.definition in task.unseen_descriptions[:NUM_WORDINGS]
        else:
            assert not any(text in prompt(question) for text in (*task.descriptions, *task.unseen_descriptions))
        assert question.key is None, "the base model alone"


def test_shots_are_right_examples_of_the_task_and_never_the_asked_one() -> None:
    for question in ask("few_shot"):
        train = {example.input: example.output for example in _task(question).train[: NUM_WORDINGS * SHOTS + SHOTS]}
        inputs = [shot.input for shot in question.shots]
        assert len(set(inputs)) == SHOTS
        assert question.input not in inputs
        assert all(train[shot.input] == shot.output for shot in question.shots)
    shown = [question.shots for question in ask("few_shot")[:NUM_WORDINGS]]
    assert all(one != other for one, other in pairwise(shown)), "inputs take turns"


def test_an_example_with_the_asked_input_is_passed_over() -> None:
    train = [Example("a", "A"), *(Example(text, text.upper()) for text in "bbcd")]
    [question] = questions(METHODS["few_shot"], None, [small_task(*train)], 1)
    assert [shot.input for shot in question.shots] == ["b", "c", "d"]
    with pytest.raises(DataError, match="'small' has fewer than 3 training examples"):
        questions(METHODS["few_shot"], None, [small_task(*train[:4])], 1)


@pytest.mark.parametrize(("inputs", "enough"), [("bbb", False), ("abc", False), ("bcd", True), ("abcd", True)])
def test_a_task_without_enough_shots_is_not_asked(inputs: str, enough: bool) -> None:
    """Those that differ count, and not the one that is asked about ("a")."""
    task = small_task(*(Example(text, text.upper()) for text in inputs))
    assert METHODS["few_shot"].applies_to(task, None) == enough
    if enough:
        questions(METHODS["few_shot"], None, [task], 1)


def test_methods_say_which_tasks_they_can_do() -> None:
    hand_written = free_hand_tasks()[0]
    assert METHODS["definition"].applies_to(hand_written, "unseen")
    assert not METHODS["few_shot"].applies_to(hand_written, None), "it has no training examples"
    assert not METHODS["refined"].applies_to(hand_written, "unseen")


@pytest.mark.parametrize(("wording", "own"), [("unseen", True), ("seen", True), ("shuffled", False), ("junk", False)])
def test_wordings(wording: str, own: bool) -> None:
    asked = ask("t2l", wording)
    assert len(asked) == len(TASKS) * INPUTS
    for question in asked:
        task = _task(question)
        texts = {"seen": list(task.descriptions), "unseen": list(task.unseen_descriptions)}
        assert (question.key in texts["unseen" if wording != "seen" else "seen"]) == own
        assert question.definition is None
        assert prompt(question) == CHAT.prompt(question.input), "the adapter alone must carry the task"
    assert len({question.key for question in asked if question.task == TASKS[0].name}) >= NUM_WORDINGS, "in turn"


@pytest.mark.parametrize("used", [1, 16, 24, 128])
def test_training_wording_is_what_training_used(used: int) -> None:
    tasks = build_suite(UniverseConfig(num_descriptions=used)).train[:4]
    asked = ask("t2l", "seen", tasks)
    for task, original in zip(tasks, universe(479).train, strict=False):
        own = {question.key for question in asked if question.task == task.name}
        assert own <= set(original.descriptions[:used]) and len(own) == min(used, NUM_WORDINGS)


@pytest.mark.parametrize("number", [2, 3, 32, 33, 63, 94])
def test_all_other_tasks_take_turns_in_shuffling(number: int) -> None:
    tasks = [Task(str(n), ("seen",), (str(n),), (), [Example("a", "A")] * 100) for n in range(number)]
    asked = questions(METHODS["t2l"], "shuffled", tasks, 100, {"1"})
    assert {question.key for question in asked} == {str(n) for n in range(number) if n != 1}


def test_another_tasks_description_needs_another_task() -> None:
    with pytest.raises(DataError, match="alone in its split"):
        ask("t2l", "shuffled", TASKS[:1])


def test_what_conditions_other_than_descriptions_make_adapters_from() -> None:
    assert all(question.key == question.task for method in ("one_hot", "oracle", "refined") for question in ask(method))
    assert all(question.key == question.input for question in ask("hyperdecoder"))
    assert {question.key for method in ("multitask", "average") for question in ask(method)} == {""}
    assert {question.key for question in ask("t2l", "static")} == {""}
    assert {question.key for question in ask("arrow")} == {None}
    assert set(TRAINED) == {"description", "one_hot", "input", "static"}


def test_asking_about_some_tasks_asks_what_asking_about_all_does() -> None:
    names = {TASKS[1].name, TASKS[4].name}
    some = questions(METHODS["t2l"], "shuffled", TASKS, INPUTS, names)
    assert some == [question for question in ask("t2l", "shuffled") if question.task in names]


def _task(question: Question) -> Task:
    return next(task for task in TASKS if task.name == question.task)


def test_the_shipped_base_has_that_chat_format() -> None:
    from transformers import AutoTokenizer

    chat = PromptFormat.of(AutoTokenizer.from_pretrained(BASE_DIR))
    assert chat.prompt("x", "d", [Example("a", "b")]).count("d\n\n") == 1


def test_tasks_without_unseen_wording_are_left_out_of_what_needs_one() -> None:
    bare = Task("bare", ("Say it.",), (), (), (Example("a", "A"), Example("b", "B")))
    assert METHODS["t2l"].applies_to(bare, "seen") and METHODS["t2l"].applies_to(bare, "junk")
    assert not METHODS["t2l"].applies_to(bare, "unseen")
    assert not METHODS["t2l"].applies_to(bare, "shuffled"), "unseen and shuffled are about the same tasks"
    known = small_task()
    other = Task("other", ("Do it.",), ("Do it now.",), (), (Example("x", "X"),))
    shuffled = questions(METHODS["t2l"], "shuffled", [bare, known, other], 2, {"small", "other"})
    assert [(question.task, question.key) for question in shuffled] == [
        ("small", "Do it now."),
        ("other", "Say it, please."),
    ]


def test_an_answer_is_scored_by_the_right_one_that_it_comes_closest_to() -> None:
    task = Task("two", ("Name it.",), ("Name.",), (), (Example("a", "the cat sat", ("a dog ran off",)),))
    [question] = questions(METHODS["t2l"], "unseen", [task], 1)
    assert question.score("a dog ran off", "exact_match") == question.score("the cat sat", "exact_match") == 1.0
    assert question.score("a dog sat", "rouge_l") == pytest.approx(2 * 2 / (3 + 4))
    assert question.score("neither", "exact_match") == 0.0
