"""Calls a step at another app: the request, and what each answer means."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import orjson

from perdure.errors import Broken, Failed, NotFound, PerdureError, Transient
from perdure.observability.tracing import trace_headers
from perdure.pipeline.server import StepCall
from perdure.sidecar.ports import Answer, Invoker

GRACE_S = 5.0
"""The app ends a handler at its own time limit; this is left for the answer to arrive."""

FAULTS = frozenset({"step_failed", "step_timed_out", "step_in_doubt", "step_output_wrong"})
"""What an app says about its handler, as opposed to about the request."""


class RemoteSteps:
    """Steps at other apps, by service invocation. The same call may be made again with the same key at any time."""

    def __init__(self, invoker: Invoker) -> None:
        self._invoker = invoker

    async def call(self, app: str, step: str, call: StepCall, timeout_s: float) -> str:
        """The step's answer as JSON text.

        Raises: Failed (what the app said of its handler, or that it refuses the call), Transient (the app is away or
        busy: ask again).
        """
        headers = {"content-type": "application/json", "idempotency-key": call.key, **trace_headers()}
        try:
            answer = await self._invoker.call(
                app, "POST", f"/steps/{step}", body=orjson.dumps(asdict(call)), headers=headers,
                timeout_s=timeout_s + GRACE_S,
            )  # fmt: skip
        except NotFound as unknown:
            # An app that restarts is unknown for a while, and nobody can tell that from one that never was.
            raise Transient("app_away", f"{unknown.message}; the step waits for it", app_id=app) from unknown
        if answer.status == HTTPStatus.OK:
            return _output(app, step, answer)
        raise _refusal(app, step, answer)


def _output(app: str, step: str, answer: Answer) -> str:
    said = _json(answer)
    if not isinstance(said, dict) or "output" not in said:
        raise Broken("answer_malformed", f"app {app!r} answered step {step!r} with something else than an output")
    return orjson.dumps(said["output"]).decode()


def _refusal(app: str, step: str, answer: Answer) -> PerdureError:
    said = _json(answer)
    problem: dict[str, Any] = said if isinstance(said, dict) else {}
    code = str(problem.get("code", f"http_{answer.status}"))
    detail = str(problem.get("detail", answer.body[:200].decode(errors="replace")))
    if code in FAULTS:
        return Failed(code, detail, step=step)
    away = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE,
            HTTPStatus.GATEWAY_TIMEOUT, HTTPStatus.REQUEST_TIMEOUT)  # fmt: skip
    if answer.status in away:
        return Transient("app_busy", f"app {app!r} puts step {step!r} off ({code}): {detail}", app_id=app)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failed("step_failed", f"app {app!r}, step {step!r}: {detail}", step=step)
    return Failed("step_refused", f"app {app!r} refuses step {step!r} ({answer.status} {code}): {detail}", step=step)


def _json(answer: Answer) -> Any:
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
