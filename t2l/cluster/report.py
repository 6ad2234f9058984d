"""The table at the end of a run: its best checkpoint beside prompts alone, on seen and held-out tasks."""

from collections.abc import Callable
from pathlib import Path

from t2l.cluster.aims import Request
from t2l.cluster.evaluators import alone, evaluate
from t2l.cluster.run import Outcome, store_of
from t2l.config import RunConfig
from t2l.errors import DataError
from t2l.evaluation.records import Record, ResultFile

METHODS = ("base", "definition", "t2l", "one_hot", "hyperdecoder", "multitask")
RESULTS_FILE = "results.json"


def make_report(config: RunConfig, done: Outcome, tell: Callable[[str], None]) -> list[Record]:
    """Evaluate on tasks that were trained on and on held-out ones.

    Also writes <run>/results.json, record by record; those that are there already are not measured again.
    """
    tell("loading the checkpoint")
    copy = store_of(config).copy
    copy.pull(f"checkpoints/{done.checkpoint.name}/")
    inputs, run_code = config.train.report_inputs, config.data.run_code
    request = Request((done.checkpoint,), inputs=inputs, methods=METHODS, run_code=run_code)
    path = done.run_dir / RESULTS_FILE
    results = _known(path) or ResultFile(command=f"the end of the run {config.name}")
    results.records = evaluate(request, results, alone, path, lambda news: tell(f"evaluating: {news}"))
    results.write(path)
    copy.push(RESULTS_FILE)
    return results.records


def _known(path: Path) -> ResultFile | None:
    try:
        return ResultFile.read(path)
    except DataError:  # not there, or damaged
        return None
