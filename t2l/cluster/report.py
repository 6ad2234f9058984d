"""The table at the end of a run: seen and held-out tasks under every condition, with the best checkpoint."""

from collections.abc import Callable

from t2l.cluster.run import Outcome, Report
from t2l.config import RunConfig
from t2l.data.suite import build_suite
from t2l.evaluation.suite import Evaluation
from t2l.evaluation.table import accuracies, write_json
from t2l.text_to_lora import TextToLora

CONDITIONS = ("base", "definition", "t2l", "shuffled", "junk")
RESULTS_FILE = "results.json"
_SEEN_TASKS = 100


def make_report(config: RunConfig, done: Outcome, tell: Callable[[str], None]) -> Report:
    """Evaluate on tasks that were trained on and on held-out ones; also writes <run>/results.json.

    Splits of a single task are left out: there is no other task's description to hold against its own.
    """
    tell("loading the checkpoint")
    t2l = TextToLora.from_pretrained(done.checkpoint)
    suite = build_suite(config.data)
    splits = {"seen": suite.train[:_SEEN_TASKS], "held_out": suite.test, **suite.extra}
    present = {name: tasks for name, tasks in splits.items() if len(tasks) > 1}
    evaluation = Evaluation(t2l.base, t2l.tokenizer, lambda texts: t2l.generate(texts).weights)
    report = evaluation.run(
        present, CONDITIONS, config.train.report_inputs, lambda split, name: tell(f"evaluating {split}: {name}")
    )
    write_json(done.run_dir / RESULTS_FILE, accuracies(report))
    return report
