"""Answers without a known end, which send every item when it comes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, Self, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class LiveResponse(Response, Generic[Item]):
    """An answer that sends items as they come. It ends with its source, or when the reader disconnects."""

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
        """Open `source`, and return the answer with its items. Raises the errors of opening before a byte is sent."""
        async with AsyncExitStack() as opening:
            items = await opening.enter_async_context(source)
            response = cls(items, encode, media_type)
            response._resources = opening.pop_all()
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the items until the source ends or the reader disconnects, then close the source."""
        tasks = {asyncio.ensure_future(self._send(send)), asyncio.ensure_future(_disconnect(receive))}
        try:
            async with self._resources:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    logger.warning("a streamed answer ended early", exc_info=error)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for item in self._items:
            await send({"type": "http.response.body", "body": self._encode(item), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _disconnect(receive: Receive) -> None:
    """Wait until the reader disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
