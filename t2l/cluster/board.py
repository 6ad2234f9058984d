"""How the processes of a sweep's trials reach the driver and each other. Light, as many of them import it."""

from collections.abc import Mapping
from typing import Any

import ray
import ray.train


class Board:
    """An actor: the newest news of every trial, and how to call a trial off."""

    def __init__(self) -> None:
        self._news: dict[str, dict[str, Any]] = {}
        self._controllers: dict[str, Any] = {}

    def tell(self, trial: str, news: Mapping[str, Any]) -> None:
        self._news[trial] = self._news.get(trial, {}) | dict(news)

    def read(self) -> dict[str, dict[str, Any]]:
        return self._news

    def introduce(self, trial: str, controller: Any) -> None:
        """Ray Train's controller of a trial: its handle."""
        self._controllers[trial] = controller

    def controller(self, trial: str) -> Any:
        """None if the trial has none yet."""
        return self._controllers.get(trial)


class Introduction(ray.train.UserCallback):
    """Runs in Ray Train's controller: gives the board its handle."""

    def __init__(self, trial: str, board: Any) -> None:
        self._trial, self._board = trial, board

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
        self._board.introduce.remote(self._trial, ray.get_runtime_context().current_actor)


class Status:
    """Stands in for a run's own status actor: what it is told goes to the board, under the trial's name."""

    def __init__(self, trial: str, board: Any) -> None:
        self._trial, self._board = trial, board

    @property
    def tell(self) -> "Status":
        return self

    def remote(self, news: Mapping[str, Any]) -> None:
        self._board.tell.remote(self._trial, news)
