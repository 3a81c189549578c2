"""Errors as HTTP answers: problem details (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from twofold.errors import TwofoldError, Unauthorized, Unavailable, UnsupportedCoding
from twofold.web.bodies import JsonResponse


def problem_response(error: TwofoldError) -> Response:
    """Return the answer for `error`."""
    return JsonResponse(
        problem_details(error), status_code=error.status, headers=_headers(error), media_type="application/problem+json"
    )


def _headers(error: TwofoldError) -> Mapping[str, str] | None:
    if isinstance(error, Unavailable):
        return retry_headers(error)
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    return {"Accept-Encoding": "gzip"} if isinstance(error, UnsupportedCoding) else None  # RFC 7694


def retry_headers(error: Unavailable) -> Mapping[str, str]:
    """Return the headers of a 503: the seconds until the request is to be sent again."""
    return {"Retry-After": str(error.retry_after_s)}


def http_problem_response(error: HTTPException) -> Response:
    """Return the answer for an error of HTTP itself: 404 for an unknown path, 405 for a method of another path."""
    status = HTTPStatus(error.status_code)
    title = status.phrase.lower().replace(" ", "-")
    details = {"type": f"urn:twofold:problem:{title}", "title": title, "status": status.value, "detail": error.detail}
    return JsonResponse(details, status_code=status, headers=error.headers, media_type="application/problem+json")


def problem_details(error: TwofoldError) -> dict[str, object]:
    """Return the members of RFC 9457. The member `errors` lists every problem as `where` and `what`."""
    details: dict[str, object] = {
        "type": f"urn:twofold:problem:{error.title}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if error.problems:
        details["errors"] = [problem._asdict() for problem in error.problems]
    return details
