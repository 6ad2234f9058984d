"""From settings to tasks."""

from t2l.config import DataConfig
from t2l.tasks.operations import Operations
from t2l.tasks.task import TaskSuite
from t2l.tasks.universe import sub_universe, universe


def build_suite(config: DataConfig) -> TaskSuite:
    """The tasks that a run's data settings name. Raises ConfigError where there are no such tasks."""
    if config.suite == "universe":
        return universe(config.num_train_tasks)
    operations = Operations(frozenset(config.picks), frozenset(config.renders))
    return sub_universe(config.domain, operations, config.num_validation, config.num_test)
