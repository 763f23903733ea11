"""The workflow worker of this process, around the SDK's runtime."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from dapr.ext.workflow import WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow._durabletask.internal.grpc_interceptor import DefaultClientInterceptorImpl
from dapr.ext.workflow.logger import LoggerOptions

from perdure.errors import Transient
from perdure.sidecar.dapr.channel import DaprAddress
from perdure.sidecar.dapr.workflow import ACTIVITY, FAILURE, TRANSIENT, WORKFLOW, hosting
from perdure.sidecar.ports import DriveFunction, HostBody
from perdure.types import JsonObject

log = logging.getLogger(__name__)

CONCURRENT_DRIVES = 10_000
"""Drives wait more than they work, and each replica bounds its runs by itself."""

RECONNECT_S = 0.25
"""Between two attempts to reach a sidecar that is away; the SDK's own waits grow from 2 to 15 seconds."""

ActivityFunction = Callable[[WorkflowActivityContext, Any], Awaitable[JsonObject]]


class _Stopping(threading.Event):
    """The SDK's stop sign, on which its run loop also sits out the time between two attempts to connect."""

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None and threading.current_thread().name == "WorkerRunLoop":
            timeout = min(timeout, RECONNECT_S)
        return super().wait(timeout)


class HostWorker:
    """Receives work from the sidecar in threads of its own; it reconnects by itself until it is stopped."""

    def __init__(self, address: DaprAddress, body: HostBody, drives: Drives) -> None:
        host, _, port = address.grpc.rpartition(":")
        self._runtime = WorkflowRuntime(
            host=host,
            port=port,
            interceptors=[DefaultClientInterceptorImpl(list(address.metadata))] if address.metadata else None,
            maximum_concurrent_activity_work_items=CONCURRENT_DRIVES,
            # The SDK's records go where the application's go, instead of to a handler of its own.
            logger_options=LoggerOptions(log_level="WARNING", log_handler=logging.NullHandler()),
        )
        self._runtime.register_workflow(hosting(body), name=WORKFLOW)
        self._runtime.register_activity(drives.activity(), name=ACTIVITY)
        # Written out, since the name is mangled. The SDK's own question for readiness sleeps in the
        # caller's thread, its waits between attempts grow to 15 s, and its run loop leaves tasks and
        # the event loop open; all three are put right here.
        self._inner: Any = getattr(self._runtime, "_WorkflowRuntime__worker")  # noqa: B009
        self._inner._shutdown = _Stopping()  # noqa: SLF001
        self._run: Callable[[], Awaitable[None]] = self._inner._async_run_loop  # noqa: SLF001
        self._inner._async_run_loop = self._run_tidily  # noqa: SLF001
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        """Whether the stream of work is open."""
        return bool(self._inner.is_worker_ready())

    def start(self) -> None:
        """Return when the stream of work is open, however long that takes. Blocks."""
        self._runtime.start()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """End the stream and every thread; ends a `start` that still waits, too. Blocks."""
        self._runtime.shutdown()  # type: ignore[no-untyped-call]
        if self._loop is not None and not self._loop.is_running():
            self._loop.close()

    def _wait_in_threads(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the thread that looks for work look on, instead of waking the loop ten times a second to say "none"."""
        in_executor = loop.run_in_executor

        def look_on(look: Callable[[], Any]) -> Any:
            while True:
                try:
                    return look()
                except queue.Empty:
                    if self._inner._shutdown.is_set():  # noqa: SLF001
                        raise

        def run_in_executor(executor: Any, work: Callable[..., Any], *args: Any) -> Any:
            return in_executor(executor, look_on, lambda: work(*args))

        loop.run_in_executor = run_in_executor  # type: ignore[method-assign, assignment]

    async def _run_tidily(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wait_in_threads(self._loop)
        try:
            await self._run()
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self._loop.shutdown_default_executor()


class Drives:
    """The drives under way: each runs on the application's own loop while the worker's loop waits for it."""

    def __init__(self, drive: DriveFunction) -> None:
        self._drive = drive
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    def activity(self) -> ActivityFunction:
        """A new activity function; the SDK marks what it registers, so never shared."""

        async def driving(_: WorkflowActivityContext, input: Any) -> JsonObject:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._answer(input), self._loop))

        return driving

    async def cancel(self) -> None:
        """End the drives that are left."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, input: JsonObject) -> JsonObject:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await self._drive(input)
        except Transient as error:
            log.info("a drive is repeated by its host: %s", error)
            return {FAILURE: TRANSIENT}
        except Exception as error:  # the drive may raise anything; its host must hear of it, or it waits for ever
            log.exception("a drive failed; its host ends as failed")
            return {FAILURE: f"{type(error).__name__}: {error}"}
