"""From exceptions to problems, in one place; each failure is logged once."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from perdure.errors import PerdureError
from perdure.observability.logs import get_logger
from perdure.serving.problem import problem, problem_of
from perdure.types import Json

log = get_logger(__name__)

INTERNAL = "something failed inside the service; give a maintainer the trace id"
LONGEST_FIELDS = 20
"""Wrong fields that are listed; a body can hold any number of them."""


class BodyTooLarge(HTTPException):
    """Raised while the body is read, so it also stops one that says nothing, or a lie, about its length."""

    def __init__(self, limit: int) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {limit} bytes; send less")
        self.limit = limit


def too_large(error: BodyTooLarge) -> Response:
    """The answer; the rest of the body is not read, so the connection ends with it."""
    headers = {"Connection": "close"}
    return problem(error.status_code, "body_too_large", str(error.detail), headers=headers, limit=error.limit)


def install(app: FastAPI) -> None:
    """Make `app` answer every error as a problem."""
    app.add_exception_handler(PerdureError, _perdure)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


def unexpected(error: Exception) -> Response:
    """The answer to an exception that nobody foresaw: logged with its traceback, told without any."""
    log.failure("request_failed", error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", INTERNAL)


async def _perdure(request: Request, error: Exception) -> Response:
    if not isinstance(error, PerdureError):
        raise error
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.failure("request_failed", error)
    elif error.retryable:
        log.warning("request_put_off", code=error.code, error=error.message)
    return problem_of(error)


async def _validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    wrong = error.errors()
    broken = next((each for each in wrong if each["type"] == "json_invalid"), None)
    if broken is not None:
        at = broken["loc"][-1]
        reason = broken.get("ctx", {}).get("error", "not JSON")
        return problem(HTTPStatus.BAD_REQUEST, "json_malformed", f"the body is not JSON: {reason} at character {at}")
    fields: list[Json] = [
        {"field": ".".join(str(part) for part in each["loc"][1:]), "in": str(each["loc"][0]), "problem": each["msg"]}
        for each in wrong[:LONGEST_FIELDS]
    ]
    named = "; ".join(f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in wrong[:3])
    return problem(HTTPStatus.BAD_REQUEST, "request_invalid", f"correct the request: {named}", fields=fields)


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if isinstance(error, BodyTooLarge):
        return too_large(error)
    path = request.scope["path"]
    method = request.method
    known = {
        HTTPStatus.BAD_REQUEST: ("json_malformed", "the body is not JSON in UTF-8; send an application/json body"),
        HTTPStatus.NOT_FOUND: ("path_unknown", f"{path} does not exist here; /docs lists what does"),
        HTTPStatus.METHOD_NOT_ALLOWED: (
            "method_not_allowed",
            f"{method} is not possible at {path}; /docs says what is",
        ),
    }
    code, detail = known.get(HTTPStatus(error.status_code), (f"http_{error.status_code}", str(error.detail)))
    return problem(error.status_code, code, detail, headers=error.headers)
