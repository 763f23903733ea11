"""Keeps a service up for as long as its HTTP side lives, also when the sidecar comes late."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType

from perdure.clock import Clock
from perdure.errors import Invalid, PerdureError
from perdure.observability.logs import get_logger
from perdure.serving.service import Service, Standing
from perdure.serving.wiring import Plan, Reach, build

log = get_logger(__name__)

START_WAIT_S = 3.0
"""How long HTTP waits for everything else: in good order it is up in a third of a second. After that the service
answers (503, and says what is missing) while it goes on trying, because a sidecar may itself wait for its app."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


class Keeper:
    """One task that builds the service, keeps it, and takes it down; all its exit stacks are entered and left there."""

    def __init__(self, plan: Plan, reach: Callable[[], Reach], standing: Standing) -> None:
        self.plan = plan
        self.standing = standing
        self._reach = reach
        self._up = asyncio.Event()
        self._stop = asyncio.Event()
        self._http = asyncio.Event()
        self._whole = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> asyncio.Task[None]:
        """Have the service built from now on, before its HTTP side is there: what a crash interrupted goes on first.

        Whoever begins ends it, by `kept` or by cancelling the task.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="service")
        return self._task

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While open the service is up, or being brought up. Raises what is wrong for good, like a wrong setting."""
        task = self.begin()
        self._http.set()
        up = asyncio.create_task(self._up.wait())
        try:
            await asyncio.wait((task, up), timeout=START_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            with self._draining_at_sigterm():
                task.add_done_callback(self._ended_by_itself)
                yield
        finally:
            up.cancel()
            self._stop.set()
            if not self._whole:
                task.cancel()  # what it still waits for may take long; what it drives is released all the same
            with suppress(asyncio.CancelledError):
                await task  # raises what ended the service, if something did

    def _ended_by_itself(self, task: asyncio.Task[None]) -> None:
        """A defect ended the service: end the process, to be replaced, instead of answering 503 for ever."""
        if self._stop.is_set() or task.cancelled() or (error := task.exception()) is None:
            return
        log.failure("service_failed", error)
        self.standing.reason = f"{type(error).__name__}: {error}; the log has more"
        signal.raise_signal(signal.SIGTERM)

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stop.is_set():
            try:
                await self._live()
            except Invalid:
                raise  # nothing that time would mend: a wrong declaration or setting
            except PerdureError as error:
                self._not_up(error)
                await self._nap(self.plan.clock, pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)

    def _not_up(self, error: PerdureError) -> None:
        """Keep the reason for who asks; say it in the log when it is a new one."""
        if error.message != self.standing.reason:
            log.warning("service_not_up", code=error.code, error=error.message)
        self.standing.reason = error.message

    async def _live(self) -> None:
        """One life of the service: from building it to `_stop`."""
        standing = self.standing
        try:
            async with build(self.plan, self._reach(), self._built, self._driving) as service:
                self._whole = True
                log.info("service_up", app=service.app_id)
                await self._stop.wait()
        finally:
            self._whole = False
            standing.service, standing.up = None, False

    async def _driving(self) -> None:
        """Requests are answered from now on. The rest waits for the HTTP side: loading both at once delays it."""
        self.standing.up = True
        self._up.set()
        await self._http.wait()

    def _built(self, service: Service) -> None:
        self.standing.service = service

    async def _nap(self, clock: Clock, seconds: float) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        napping = asyncio.create_task(clock.sleep(seconds))
        await asyncio.wait((stopping, napping), return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, napping):
            task.cancel()

    def _drain(self) -> None:
        if self.standing.service is not None:
            self.standing.service.draining.set()

    @contextmanager
    def _draining_at_sigterm(self) -> Iterator[None]:
        """Answer who waits (long requests, event streams) at once on SIGTERM: a server ends the lifespan only when
        the last connection is gone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = signal.getsignal(signal.SIGTERM)

        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._drain)
            if callable(before):
                before(number, frame)
            elif before == signal.SIG_DFL:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.raise_signal(number)

        signal.signal(signal.SIGTERM, handle)
        try:
            yield
        finally:
            with suppress(ValueError):  # the interpreter is on its way out; nothing to restore
                signal.signal(signal.SIGTERM, before)
