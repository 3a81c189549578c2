"""TODO module."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, Self, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from twofold.web.function import logger

Item = TypeVar("Item")


class LiveResponse(Response, Generic[Item]):
    """An answer without a known end: each item as it comes. It ends when its source does, or its reader goes."""

    def __init__(self, items: AsyncIterator[Item], encode: Callable[[Item], bytes], media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._items = items
        self._encode = encode
        self._resources = AsyncExitStack()

    @classmethod
    async def of(
        cls,
        source: AbstractAsyncContextManager[AsyncIterator[Item]],
        encode: Callable[[Item], bytes],
        media_type: str,
    ) -> Self:
        """The answer of what `source` gives; whatever its opening raises is raised here, before anything is sent."""
        async with AsyncExitStack() as opening:
            items = await opening.enter_async_context(source)
            response = cls(items, encode, media_type)
            response._resources = opening.pop_all()
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end; then the source is closed, whoever ended it."""
        tasks = {asyncio.ensure_future(self._send(send)), asyncio.ensure_future(_left(receive))}
        try:
            async with self._resources:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    logger.warning("a live answer ended early", exc_info=error)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for item in self._items:
            await send({"type": "http.response.body", "body": self._encode(item), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    """Wait until the reader is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
