"""The end of a worker process, as one ordered list.

1. SIGTERM arrives. The server keeps serving.
2. The steps of `before_stop` run in their order: first the connections are drained, then the service finishes.
3. If there is an `at_exit`, SIGTERM is blocked: uvicorn raises the signal again when it has stopped, and that would end
   the process before step 5.
4. The server stops: uvicorn ends the requests that are under way.
5. `at_exit` runs: telemetry sends its last values.

uvicorn has no hook between the signal and its own stop, so this module takes the signal over and calls uvicorn's
handler in step 4.
"""

import asyncio
import atexit
import signal
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType

Step = Callable[[], Awaitable[None]]


class Shutdown:
    """The steps of one worker process. Make it in the running event loop, after the server's start.

    The caller may append steps to `before_stop` until SIGTERM arrives.
    """

    def __init__(self, before_stop: Sequence[Step], at_exit: Callable[[], None] | None = None) -> None:
        self._before_stop = before_stop
        self._at_exit = at_exit
        self._loop = asyncio.get_running_loop()
        self._stop_server = signal.getsignal(signal.SIGTERM)
        self._running: asyncio.Task[None] | None = None
        signal.signal(signal.SIGTERM, self._on_sigterm)
        if at_exit is not None:
            atexit.register(at_exit)

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._start, signum, frame)

    def _start(self, signum: int, frame: FrameType | None) -> None:
        if self._running is None:  # a second SIGTERM changes nothing
            self._running = self._loop.create_task(self._run(signum, frame))

    async def _run(self, signum: int, frame: FrameType | None) -> None:
        try:
            for step in self._before_stop:
                await step()
        finally:
            if self._at_exit is not None:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            if callable(self._stop_server):
                self._stop_server(signum, frame)
