"""TODO module."""

from starlette.responses import Response

from twofold.errors import TwofoldError, Unauthorized, Unavailable
from twofold.web.bodies import JsonResponse


def problem_response(error: TwofoldError) -> Response:
    """The answer for `error`."""
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Unavailable) else None
    if isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    return JsonResponse(
        problem_details(error), status_code=error.status, headers=headers, media_type="application/problem+json"
    )


def problem_details(error: TwofoldError) -> dict[str, object]:
    """The members of RFC 9457; `errors` names each thing that is wrong: `where` and `what`."""
    details: dict[str, object] = {
        "type": f"urn:twofold:problem:{error.title}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if error.problems:
        details["errors"] = [problem_response._asdict() for problem_response in error.problems]
    return details
