"""The limit: an ASGI function that only reads its body."""

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response


@functions_framework.aio.http
async def limit(request: Request) -> Response:
    """Answer 200."""
    await request.body()
    return Response(status_code=200)
