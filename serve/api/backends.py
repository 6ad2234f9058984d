"""The other deployments, called with timeouts; whatever goes wrong with them becomes an ApiError.

A call whose replica dies is made once more, as long as nothing of its answer has been used.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

from serve.api.errors import ApiError
from serve.handles import by_value
from serve.protocol import AdapterRef, BusyError, Delta, Embedding, EngineError, GenerateRequest
from serve.replica_metrics import ReplicaMetrics
from serve.settings import Timeouts
from t2l.errors import T2LError, T2LValueError

logger = logging.getLogger("ray.serve")
T = TypeVar("T")

PROBE_S = 5.0
"""Seconds for calls that do no work: readiness, metrics, what the Gateway's replicas tell each other."""


class ReplicaDiedError(T2LError):
    """The replica that worked on a call is gone, and the rest of its answer with it."""


class Backends:
    """TextEncoder, HyperNetwork and LLM."""

    def __init__(
        self, encoder: DeploymentHandle, hypernet: DeploymentHandle, llm: DeploymentHandle, timeouts: Timeouts
    ) -> None:
        self._encoder, self._hypernet, self._llm = by_value(encoder), hypernet, by_value(llm)
        self._generate = self._llm.options(method_name="generate", stream=True)
        self._timeouts = timeouts

    async def embed(self, texts: list[str]) -> list[Embedding]:
        return await _call(self._encoder.embed, self._timeouts.encode_s, texts)

    async def peft_zip(self, adapter: AdapterRef, description: str) -> bytes:
        return await _call(self._hypernet.peft_zip, self._timeouts.generate_s, adapter, description)

    async def load(self, adapters: list[AdapterRef]) -> float:
        """Have one LLM replica make what it lacks of these; seconds that it took."""
        return await _call(self._llm.load, self._timeouts.generate_s, adapters)

    async def unload(self, key: str) -> None:
        """Make all LLM replicas forget an adapter; one that is dead has nothing left to forget."""
        (await broadcast(self._llm, "unload", key)).all()

    async def check(self) -> None:
        """Raises ApiError unless all three deployments answer."""
        handles = (self._encoder, self._hypernet, self._llm)
        await asyncio.gather(*(_call(handle.metrics, PROBE_S) for handle in handles))

    async def metrics(self) -> dict[str, list[ReplicaMetrics]]:
        """By deployment, of the replicas that answer."""
        handles = (self._encoder, self._hypernet, self._llm)
        told = await asyncio.gather(*(broadcast(handle, "metrics") for handle in handles))
        return {handle.deployment_name: answers.given for handle, answers in zip(handles, told, strict=True)}

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """One answer; its last delta has a finish reason. Closing this generator cancels the request.

        Raises ApiError. The request is repeated if its replica dies before the first delta.
        """
        stream, ended = None, False
        try:
            async with asyncio.timeout(self._timeouts.first_token_s):
                delta, stream = await self._first_delta(request)
            while True:
                if delta.error is not None:
                    raise EngineError(delta.error)
                ended = delta.finish_reason is not None
                yield delta
                if ended:
                    return
                async with asyncio.timeout(self._timeouts.next_token_s):
                    delta = await _result(anext(stream))
        except Exception as error:
            raise api_error(error) from error
        finally:
            if stream is not None and not ended:
                stream.cancel()

    async def _first_delta(self, request: GenerateRequest) -> tuple[Delta, DeploymentResponseGenerator[Delta]]:
        async def attempt() -> tuple[Delta, DeploymentResponseGenerator[Delta]]:
            stream = self._generate.remote(request)
            assert isinstance(stream, DeploymentResponseGenerator)
            return await _cancelling(stream, anext(stream)), stream

        return await _twice(attempt)


class Answers(NamedTuple):
    """Of all replicas that live: what they answered, and why others did not, or not in time."""

    given: list[Any]
    lacking: list[ApiError]

    def all(self) -> list[Any]:
        """Raises ApiError if one lacks."""
        for error in self.lacking:
            raise error
        return self.given


async def broadcast(handle: DeploymentHandle, method: str, *args: Any) -> Answers:
    """Ask all replicas of a deployment the same; each has PROBE_S to answer."""
    try:
        async with asyncio.timeout(PROBE_S):
            # Not its results_async, which gives no answer at all where one replica's does not come in time.
            replicas = await handle.broadcast(method, *args)._fetch_replica_results_async()
    except Exception as error:
        return Answers([], [api_error(error)])
    calls = (asyncio.wait_for(replica.get_async(), PROBE_S) for replica in replicas)
    answers = [answer for answer in await asyncio.gather(*calls, return_exceptions=True) if not _is_death(answer)]
    return Answers(
        given=[answer for answer in answers if not isinstance(answer, Exception)],
        lacking=[api_error(answer) for answer in answers if isinstance(answer, Exception)],
    )


def api_error(error: Exception) -> ApiError:
    """What a client is told of a failed call."""
    again = {"Retry-After": "1"}
    match cause := _cause(error):
        case ApiError():
            return cause
        case BusyError() | BackPressureError():
            return ApiError(429, "the queue is full: try again later", code="queue_full", headers=again)
        case T2LValueError():
            return ApiError(400, str(cause))
        case TimeoutError():
            return ApiError(504, "a step of the request took longer than its timeout: try again later", code="timeout")
        case ReplicaDiedError() | EngineError() | RayActorError() | DeploymentUnavailableError():
            return ApiError(
                503, "the replica that worked on the request died: try again", code="replica_died", headers=again
            )
        case _:
            logger.error("a call to another deployment failed", exc_info=error)
            return ApiError(500, "another part of the server failed; its log says why")


async def _call(method: DeploymentHandle, timeout_s: float, *args: Any) -> Any:
    async def attempt() -> Any:
        response = method.remote(*args)
        return await _cancelling(response, response)

    try:
        async with asyncio.timeout(timeout_s):
            return await _twice(attempt)
    except Exception as error:
        raise api_error(error) from error


async def _twice(attempt: Callable[[], Awaitable[T]]) -> T:
    try:
        return await attempt()
    except ReplicaDiedError:
        return await attempt()


async def _cancelling(call: DeploymentResponse | DeploymentResponseGenerator, answer: Awaitable[T]) -> T:
    """The answer; a call that gives none is cancelled at its other end too."""
    try:
        return await _result(answer)
    except BaseException:
        call.cancel()
        raise


async def _result(answer: Awaitable[T]) -> T:
    """Raises ReplicaDiedError for all the ways in which Ray says so."""
    try:
        return await answer
    except StopAsyncIteration:
        raise ReplicaDiedError("a stream ended without a finish reason") from None
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        we_are_cancelled = task is not None and task.cancelling() > 0
        if _is_death(error) and not we_are_cancelled:
            raise ReplicaDiedError(str(error)) from error
        raise


def _is_death(error: object) -> bool:
    # CancelledError: Ray ended the call at its other end, as it does when a replica is taken down.
    return isinstance(_cause(error), RayActorError | ReplicaUnavailableError | asyncio.CancelledError)


def _cause(error: Any) -> Any:
    """What was raised in the first place, however many deployments it has come through."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return error
