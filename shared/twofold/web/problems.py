"""Errors as HTTP answers: problem details (RFC 9457)."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from twofold.errors import TwofoldError, Unauthorized, Unavailable
from twofold.web.bodies import JsonResponse


def problem_response(error: TwofoldError) -> Response:
    """Return the answer for `error`."""
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Unavailable) else None
    if isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    return JsonResponse(
        problem_details(error), status_code=error.status, headers=headers, media_type="application/problem+json"
    )


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
