"""The errors of Twofold, with their HTTP statuses.

`unexpected` writes a log line; the rest does no I/O.

The statuses are the contract with Knative (docs/architecture.md, "Status codes"). A KafkaSource sends an event
again after a 503, and not after a 400, 401, 403, 413, 415 or 422.

OpenAPI descriptions show the first sentence of an error's docstring.
"""

import logging
import traceback
from typing import ClassVar, NamedTuple

logger = logging.getLogger(__name__)

MAX_DETAIL_CHARS = 2000
"""The most characters of an error's detail."""
MAX_PROBLEMS = 20
"""The most problems of an error. The last one counts the problems that are left out."""
MAX_WHERE_CHARS = 250
MAX_WHAT_CHARS = 500
_CUT = "..."


class Problem(NamedTuple):
    """A mistake and its place: an attribute, a parameter, or a path such as `data.items[3].price`."""

    where: str
    what: str


def cut_text(text: str, most: int) -> str:
    """Return the text, or its first characters and `...`: at most `most` characters."""
    return text if len(text) <= most else text[: most - len(_CUT)] + _CUT


def _cut_problems(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    left_out = len(problems) - MAX_PROBLEMS + 1
    if left_out > 1:
        problems = (*problems[: MAX_PROBLEMS - 1], Problem("", f"{left_out} more problems are left out"))
    return tuple(Problem(cut_text(where, MAX_WHERE_CHARS), cut_text(what, MAX_WHAT_CHARS)) for where, what in problems)


class TwofoldError(Exception):
    """The base of the errors that Twofold raises.

    `status` is the HTTP status, `title` is stable and names the class in answers, and `retriable` is True if the same
    request can succeed later. Detail and problems are cut to the bounds above: the input never decides their size.
    """

    status: ClassVar[int]
    title: ClassVar[str]
    retriable: ClassVar[bool] = False

    def __init__(self, detail: str, problems: tuple[Problem, ...] = ()) -> None:
        detail = cut_text(detail, MAX_DETAIL_CHARS)
        super().__init__(detail)
        self.detail = detail
        self.problems = _cut_problems(problems)


class Rejected(TwofoldError):
    """The base of permanent errors: the same request fails again.

    A `where` adds the detail to `problems`, at this place.
    """

    given_id: str | None = None
    """The `id` of the event, if the error refuses an event of a batch that has an `id`."""

    def __init__(self, detail: str, where: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(detail, problems or ((Problem(where, detail),) if where else ()))


class Malformed(Rejected):
    """The request cannot be read: its HTTP, JSON or CloudEvent is malformed."""

    status = 400
    title = "malformed"


class TooLarge(Rejected):
    """The request has too many bytes or too many events."""

    status = 413
    title = "too-large"


class UnsupportedType(Rejected):
    """The content type is not supported."""

    status = 415
    title = "unsupported-type"


class UnsupportedCoding(Rejected):
    """The coding of the body is not supported: only gzip is."""

    status = 415
    title = "unsupported-coding"


class Invalid(Rejected):
    """The request was read, but its values are not allowed."""

    status = 422
    title = "invalid"


class Conflict(Rejected):
    """Another event has this id already: the ids are equal, and the digests differ."""

    status = 422
    title = "identity-conflict"


class DigestMismatch(Rejected):
    """The event was altered on its way: its digest belongs to other content."""

    status = 422
    title = "digest-mismatch"


class UnknownReplay(Rejected):
    """The replayed event is unknown, and a replay makes no new events."""

    status = 422
    title = "unknown-replay"


class Undelivered(Rejected):
    """The KafkaSource stopped retrying. The relay still sends the event, if Twofold published it."""

    status = 422
    title = "undelivered"


class Unexpected(Rejected):
    """The event raised an unexpected error in Twofold: a mistake in the code, not in the event.

    The error says nothing about other events, so it must not stop them. `unexpected` makes it.
    """

    status = 422
    title = "unexpected"


class Unauthorized(Rejected):
    """The bearer token is missing or invalid."""

    status = 401
    title = "unauthorized"


class Forbidden(Rejected):
    """The caller's permissions do not cover the request."""

    status = 403
    title = "forbidden"


class Refused(Rejected):
    """The base of errors for people. Event sinks never return them, because Knative retries 404 and 409."""


class NotFound(Refused):
    """The resource does not exist, or the caller may not see it."""

    status = 404
    title = "not-found"


class Gone(Refused):
    """The resource existed, and is no longer available."""

    status = 410
    title = "gone"


class NotInLog(Refused):
    """The event is not yet confirmed in the log, so it must stay in `events`."""

    status = 409
    title = "not-in-log"


class Unavailable(TwofoldError):
    """A server is unavailable, full or shutting down: send the same request again later.

    `diagnosis` is the message for operators, with addresses and variables, or empty. It is for logs and the command
    line: an answer over HTTP has only the `detail`.
    """

    status = 503
    title = "unavailable"
    retriable = True
    retry_after_s: ClassVar[int] = 1
    diagnosis: str = ""


class Unreadable(Unavailable):
    """A stored event was changed in the database and is unreadable. The rest of the events can be read."""

    title = "unreadable"


def unexpected(error: Exception, subject: str) -> Unexpected:
    """Log an unexpected error of pure code, and return the error of `subject` alone. Raises a `MemoryError` again.

    The log line has the places in the code, and not the message: a message can hold personal data.
    """
    if isinstance(error, MemoryError):
        raise error
    logger.error("unexpected %s with %s:\n%s", type(error).__name__, subject, code_places(error))
    return Unexpected(f"unexpected error in Twofold ({type(error).__name__}): the function's log names its place")


def code_places(error: BaseException) -> str:
    """Return the places in the code that an error passed, without the values in its message."""
    return "".join(traceback.format_tb(error.__traceback__, limit=-12)).rstrip()


class InvalidSettings(ValueError):
    """Environment variables are missing or wrong. The message is a line that names every wrong variable."""


class MissingExtra(ImportError):
    """A package of an optional part of Twofold is not installed. The message names the extra to install."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the package {package} is not installed: run pip install 'twofold[{extra}]'", name=package)
