"""From settings to tasks."""

from t2l.config import DataConfig
from t2l.errors import ConfigError
from t2l.tasks.operations import PICKS, RENDERS, Operations
from t2l.tasks.task import TaskSuite
from t2l.tasks.universe import sub_universe, universe


def build_suite(config: DataConfig) -> TaskSuite:
    """The tasks that a run's data settings name. Raises ConfigError where there are no such tasks."""
    if config.suite == "universe":
        return universe(config.num_train_tasks)
    for key, names, tables in (("picks", config.picks, PICKS), ("renders", config.renders, RENDERS)):
        known = tables.get(config.domain, names)  # an unknown domain is sub_universe's to refuse
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(
                f"data.{key} names '{unknown[0]}', which '{config.domain}' lacks: choose from {', '.join(known)}"
            )
    operations = Operations(frozenset(config.picks), frozenset(config.renders))
    return sub_universe(config.domain, operations, config.num_validation, config.num_test)
