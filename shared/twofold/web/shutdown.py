"""TODO module."""

import asyncio
import atexit
import signal
from collections.abc import Awaitable, Callable
from types import FrameType


def before_sigterm(finish: Callable[[], Awaitable[None]]) -> None:
    """Run `finish` when SIGTERM comes, and only then let the server stop; it serves meanwhile.

    uvicorn ends the requests that are under way by itself, and then the process, without a hook behind them.
    """
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)
    finishing: list[asyncio.Task[None]] = []

    async def finish_then_stop(signum: int, frame: FrameType | None) -> None:
        try:
            await finish()
        finally:
            if callable(stop):
                stop(signum, frame)

    def start(signum: int, frame: FrameType | None) -> None:
        if not finishing:
            finishing.append(loop.create_task(finish_then_stop(signum, frame)))

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(start, signum, frame)

    signal.signal(signal.SIGTERM, on_sigterm)


def at_exit(finish: Callable[[], None]) -> None:
    """Run `finish` when the server has stopped serving, and before the process ends.

    When uvicorn has stopped, it raises the signal that stopped it once more, which would end the process there and
    then. So the signal is blocked from its first arrival on, and the process ends as others do.
    """
    stop = signal.getsignal(signal.SIGTERM)

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if callable(stop):
            stop(signum, frame)

    signal.signal(signal.SIGTERM, on_sigterm)
    atexit.register(finish)
