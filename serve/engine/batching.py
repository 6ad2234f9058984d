"""Continuous batching: requests join and leave the running batch between any two steps, in the order they came."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, Thread

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from serve.engine import EngineRequest, EngineStats
from serve.engine.rows import RowBatch
from serve.engine.slots import AdapterSlots
from serve.engine.text import AnswerText
from serve.protocol import BusyError, Delta, EngineError, FinishReason
from serve.settings import EngineSettings
from t2l.errors import ConfigError, DataError
from t2l.evaluation.decode import end_tokens
from t2l.lora.apply import PerRowLora
from t2l.lora.flat import FlatLayout
from t2l.text.positions import positions

logger = logging.getLogger(__name__)

LONGEST = 4096
"""Positions of a row by default, whatever the base model could take: every row reserves memory for all of them."""

SILENT = 64
"""Tokens without text (special ones, or the beginning of a stop string) after which a row must not seem dead."""

Deliver = Callable[[list[tuple[str, Delta]]], None]


@dataclass(eq=False)
class _Answer:
    """A running request: row i of the batch is answer i."""

    request: EngineRequest
    text: AnswerText
    max_tokens: int
    end_tokens: frozenset[int]
    tokens: int = field(default=0, init=False)
    undelivered: int = field(default=0, init=False)

    def take(self, token: int) -> Delta | None:
        """What one more token adds; None while its text is held back, but for a sign of life every SILENT tokens."""
        self.tokens += 1
        self.undelivered += 1
        ended = token in self.end_tokens
        text = "" if ended else self.text.push(token)
        reason: FinishReason | None = None
        if ended or self.text.stopped:
            reason = "stop"
        elif self.tokens >= self.max_tokens:
            reason = "length"
        if reason is not None:
            text += self.text.end()
            reason = "stop" if self.text.stopped else reason  # the very end may complete a stop string
        if not text and reason is None and self.undelivered < SILENT:
            return None
        delta = Delta(text, self.undelivered, reason)
        self.undelivered = 0
        return delta


class BatchingEngine:
    """An Engine in this process: one thread of its own runs the model, and calls `deliver` once a step.

    base: used by nobody else from now on. Rows are first come, first served, and a step reads the prompts of all who
    have just joined, as far as `prefill_tokens` go, before it decodes one token for every row: nobody waits for more
    than the rows before him. Raises ConfigError for a `max_length` beyond the base model's.
    """

    def __init__(
        self, base: PerRowLora, tokenizer: PreTrainedTokenizerBase, settings: EngineSettings, deliver: Deliver
    ) -> None:
        model = base.model
        self._max_length = row_length(settings.max_length, model.config)
        self._settings, self._deliver, self._layout = settings, deliver, FlatLayout(base.spec)
        self._tokenizer: Tokenizer = _backend(tokenizer)
        self._end_tokens = frozenset(end_tokens(model, tokenizer))
        self._slots = AdapterSlots(settings.adapter_slots, self._layout.size, model.dtype, model.device)
        self._rows = RowBatch(base, settings.rows, self._max_length, settings.prefill_tokens, settings.compile_layers)
        self._rows.warm_up()
        self._answers: list[_Answer] = []
        self._generated = self._read = 0
        self._changed = Condition()  # guards everything below
        self._waiting: deque[EngineRequest] = deque()
        self._cancelled: set[str] = set()
        self._closed = False
        self._failure: str | None = None
        self._thread = Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def max_length(self) -> int:
        """Tokens of prompt and answer together that a request may have."""
        return self._max_length

    def submit(self, request: EngineRequest) -> None:
        """See Engine."""
        self._check_fits(request)
        with self._changed:
            self._check_room()
            self._waiting.append(request)
            self._changed.notify()

    def check_room(self) -> None:
        """See Engine."""
        with self._changed:
            self._check_room()

    def cancel(self, request_id: str) -> None:
        """See Engine."""
        with self._changed:
            self._cancelled.add(request_id)
            self._changed.notify()

    def stats(self) -> EngineStats:
        """See Engine."""
        with self._changed:
            return EngineStats(
                running=len(self._answers),
                waiting=len(self._waiting),
                rows=self._settings.rows,
                free_rows=self._free_rows(),
                adapter_slots=self._settings.adapter_slots,
                resident=len(self._slots),
                slot_hits=self._slots.hits,
                slot_misses=self._slots.misses,
                slot_evictions=self._slots.evictions,
                generated_tokens=self._generated,
                prompt_tokens=self._read,
            )

    def check(self) -> None:
        """See Engine."""
        with self._changed:
            self._check_alive()

    def close(self) -> None:
        """See Engine."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _free_rows(self) -> int:
        return self._settings.rows - len(self._answers)

    def _check_room(self) -> None:
        self._check_alive()
        if len(self._waiting) >= self._settings.max_waiting + self._free_rows():
            raise BusyError(f"{self._settings.max_waiting} requests wait already: try again later")

    def _check_alive(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed")
        if self._failure is not None:
            raise EngineError(f"the engine has died ({self._failure}): start it again")

    def _check_fits(self, request: EngineRequest) -> None:
        if not 0 < len(request.prompt_ids) < self._max_length:
            raise DataError(
                f"a prompt of {len(request.prompt_ids)} tokens does not fit: give 1 to {self._max_length - 1}, "
                "so that there is room for an answer"
            )
        if request.adapter is not None:
            self._layout.check(request.adapter)

    # ---- in the engine's thread

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._has_work():
                    self._step()
        except Exception as error:  # whatever it is: nobody may be left waiting
            logger.exception("the engine has died")
            self._fail(error)

    def _has_work(self) -> bool:
        """Wait for some; False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting or self._answers or self._cancelled)
            return not self._closed

    def _step(self) -> None:
        self._drop_cancelled()
        if newcomers := self._admit():
            self._join(newcomers)
        if self._answers:
            self._decode()

    def _drop_cancelled(self) -> None:
        with self._changed:
            cancelled, self._cancelled = self._cancelled, set()
            if cancelled:
                self._waiting = deque(request for request in self._waiting if request.id not in cancelled)
        self._leave([row for row, answer in enumerate(self._answers) if answer.request.id in cancelled])

    def _admit(self) -> list[_Answer]:
        """Those who have waited longest, as many as there are rows for and as may be read in one step."""
        newcomers: list[_Answer] = []
        lengths: list[int] = []
        with self._changed:
            while self._waiting and self._free_rows():
                lengths.append(len(self._waiting[0].prompt_ids))
                if newcomers and self._rows.prefill_cost(lengths) > self._settings.prefill_tokens:
                    break
                newcomers.append(self._answer(self._waiting.popleft()))
                self._answers.append(newcomers[-1])
        return newcomers

    def _answer(self, request: EngineRequest) -> _Answer:
        room = self._max_length - len(request.prompt_ids)
        text = AnswerText(self._tokenizer, request.sampling.stop)
        end_tokens = frozenset[int]() if request.sampling.ignore_eos else self._end_tokens
        return _Answer(request, text, min(request.sampling.max_tokens, room), end_tokens)

    def _join(self, newcomers: list[_Answer]) -> None:
        for answer in newcomers:
            request = answer.request
            adapter_P = None
            if request.adapter is not None and request.adapter_key is not None:
                adapter_P = self._slots.fetch(request.adapter_key, request.adapter)
            self._rows.join(request.prompt_ids, adapter_P, request.sampling, answer.max_tokens)
            self._read += len(request.prompt_ids)
        self._rows.read([answer.request.prompt_ids for answer in newcomers])

    def _decode(self) -> None:
        tokens = self._rows.step()
        self._generated += len(tokens)
        deltas: list[tuple[str, Delta]] = []
        ended: list[int] = []
        for row, (answer, token) in enumerate(zip(self._answers, tokens, strict=True)):
            if (delta := answer.take(token)) is not None:
                deltas.append((answer.request.id, delta))
                if delta.finish_reason is not None:
                    ended.append(row)
        self._leave(ended)
        with self._changed:
            deltas = [delta for delta in deltas if delta[0] not in self._cancelled]
        if deltas:
            self._deliver(deltas)

    def _leave(self, rows: list[int]) -> None:
        """Free these rows, given in ascending order; the last rows in use take their places."""
        for row in reversed(rows):
            self._rows.leave(row)
            with self._changed:
                self._answers[row] = self._answers[-1]
                self._answers.pop()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = f"{type(error).__name__}: {error}"
            ids = [answer.request.id for answer in self._answers] + [request.id for request in self._waiting]
            ids = [id for id in ids if id not in self._cancelled]
            self._answers.clear()
            self._waiting.clear()
        self._deliver([(id, Delta("", 0, error="the model failed: send the request again")) for id in ids])


def row_length(asked: int | None, config: PreTrainedConfig) -> int:
    """Tokens of prompt and answer that a row has room for. Raises ConfigError if the base model cannot take as many."""
    limit = positions(config)
    if asked is None:
        return min(limit or LONGEST, LONGEST)
    if limit is not None and asked > limit:
        raise ConfigError(f"engine.max_length {asked} exceeds the base model's {limit} positions: lower it")
    return asked


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ConfigError(
            f"{type(tokenizer).__name__} has no fast tokenizer, which streaming needs: choose another base"
        )
    return backend
