"""The tools of one agent: checks what the model asked for, and makes the call."""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from perdure.errors import Invalid
from perdure.observability.logs import get_logger
from perdure.sidecar.ports import ChatTool
from perdure.tools.arguments import ParsedCall, ProblemKind, ToolProblem
from perdure.tools.context import Progress, ToolContext
from perdure.tools.failure import EndTurn, ToolTimedOut
from perdure.tools.reconciled import Reconciled, ReconciledAs, takes_arguments
from perdure.tools.result import ToolResult, failure_of, result_of
from perdure.tools.threads import ToolThreads
from perdure.tools.tool import Tool, tool

_log = get_logger("perdure.tools")


class Toolbox(Mapping[str, Tool[Any, Any]]):
    """Tools by name. Plain functions are taken as `@tool` with its defaults.

    Raises: Invalid (code `tool_duplicate`) when two tools share a name.
    """

    def __init__(self, tools: Iterable[Tool[Any, Any] | Callable[..., Any]] = ()) -> None:
        self._tools: dict[str, Tool[Any, Any]] = {}
        self._threads = ToolThreads()
        for given in tools:
            made = given if isinstance(given, Tool) else tool(given)
            if made.name in self._tools:
                raise Invalid("tool_duplicate", f"two tools are named {made.name!r}; rename one with @tool(name=...)")
            self._tools[made.name] = made

    def __getitem__(self, name: str) -> Tool[Any, Any]:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def offers(self) -> tuple[ChatTool, ...]:
        """All tools as they are offered to a model, in the order given."""
        return tuple(each.offer for each in self._tools.values())

    def validate(self, name: str, arguments_text: str) -> ParsedCall | ToolProblem:
        """What the model wrote, checked; nothing runs."""
        found = self._tools.get(name)
        return found.parameters.parse(arguments_text) if found else self._unknown(name)

    async def call(self, parsed: ParsedCall, context: ToolContext) -> ToolResult:
        """Run the tool; what it raises is a result the model sees.

        Raises: EndTurn (the tool ended the turn), ToolTimedOut (whether it took effect is unknown).
        """
        made = self._tools[parsed.name]
        try:
            async with asyncio.timeout(made.timeout_s) as limit:
                value = await self._run(made, parsed, context)
        except EndTurn:
            raise
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            return _told(parsed.name, error)  # of something the tool awaited, not of this task
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise _timed_out(made) from error
            return _told(parsed.name, error)
        return result_of(value)

    async def reconcile(self, parsed: ParsedCall, key: str) -> Reconciled:
        """Ask the tool what became of its call with `key`; `UNKNOWN` if it has no way to tell.

        A call whose thread still runs here may yet take effect, so its end is awaited first, for at most the
        tool's limit; after that it is `UNKNOWN`.
        """
        made = self._tools[parsed.name]
        if made.reconcile is None:
            return Reconciled(ReconciledAs.UNKNOWN, reason=f"tool {made.name!r} has no reconcile function")
        try:
            async with asyncio.timeout(made.timeout_s):
                await self._threads.ended(key)
        except TimeoutError:
            _log.warning("tool_still_runs", tool=made.name, key=key)
            return Reconciled(ReconciledAs.UNKNOWN, reason=f"tool {made.name!r} still runs, long past its limit")
        given = (key, parsed.values) if takes_arguments(made.name, made.reconcile) else (key,)
        try:
            async with asyncio.timeout(made.timeout_s):
                value = await self._invoke(made.name, functools.partial(made.reconcile, *given))
        except Exception as error:  # noqa: BLE001 - raising is how a reconcile function says that it cannot tell
            _log.warning("tool_reconcile_failed", tool=made.name, exc_info=error)
            return Reconciled(ReconciledAs.UNKNOWN, reason=failure_of(error).text)
        if value is None:
            return Reconciled(ReconciledAs.NOT_DONE)
        return Reconciled(ReconciledAs.DONE, result_of(value))

    def working(self, key: str) -> bool:
        """Whether a thread of the call with `key` still runs in this process: its effect may yet happen."""
        return self._threads.working(key)

    async def _run(self, made: Tool[Any, Any], parsed: ParsedCall, context: ToolContext) -> Any:
        given: dict[str, Any] = dict(parsed.values)
        if made.parameters.context_names:
            safe = dataclasses.replace(context, progress=_on_this_loop(context.progress))
            given |= dict.fromkeys(made.parameters.context_names, safe)
        return await self._invoke(made.name, functools.partial(made.function, **given), context.key)

    async def _invoke(self, name: str, call: functools.partial[Any], key: str = "") -> Any:
        function = call.func
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            return await call()
        value = await self._threads.run(call, name, key)
        return await value if inspect.isawaitable(value) else value

    def _unknown(self, name: str) -> ToolProblem:
        close = difflib.get_close_matches(name, self._tools, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        known = ", ".join(self._tools) or "none"
        return ToolProblem(ProblemKind.UNKNOWN_TOOL, name, f"Tool {name!r} is unknown{hint} Available: {known}.")


def _on_this_loop(progress: Progress) -> Progress:
    """`progress`, always called on the loop, wherever the tool runs."""
    loop = asyncio.get_running_loop()
    return lambda text: _hand_over(loop, progress, text)


def _hand_over(loop: asyncio.AbstractEventLoop, progress: Progress, text: str) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(progress, text)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _told(name: str, error: BaseException) -> ToolResult:
    _log.warning("tool_failed", tool=name, exc_info=error)
    return failure_of(error)


def _timed_out(made: Tool[Any, Any]) -> ToolTimedOut:
    return ToolTimedOut(
        "tool_timed_out",
        f"tool {made.name!r} did not return within {made.timeout_s:g} s; whether it took effect is unknown",
        tool=made.name,
        timeout_s=made.timeout_s,
    )
