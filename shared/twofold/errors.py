"""Everything that can go wrong, once: each error knows its HTTP status and whether trying again can help. Pure.

The statuses are the contract with Knative (docs/architecture.md, "Status codes"): 4xx is poison and is never sent
again, 503 is trouble that passes and is retried.
"""

from typing import ClassVar, NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong: where (an attribute, or a path such as `data.items[3].price`) and what."""

    where: str
    what: str


class TwofoldError(Exception):
    """The base of all errors that Twofold raises on purpose."""

    status: ClassVar[int]
    title: ClassVar[str]
    retriable: ClassVar[bool] = False

    def __init__(self, detail: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems = problems


class Rejected(TwofoldError):
    """The event can't be taken, now or later: sending it again unchanged is pointless."""

    def __init__(self, detail: str, where: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(detail, problems or ((Problem(where, detail),) if where else ()))


class Malformed(Rejected):
    """The request isn't the HTTP, JSON or CloudEvent that it says it is."""

    status = 400
    title = "malformed"


class TooLarge(Rejected):
    """More bytes, or more events, than can be carried to the log."""

    status = 413
    title = "too-large"


class UnsupportedType(Rejected):
    """The content type is none that Twofold reads."""

    status = 415
    title = "unsupported-type"


class Invalid(Rejected):
    """It can be read, but the schema forbids it."""

    status = 422
    title = "invalid"


class Conflict(Rejected):
    """The id belongs to another event already: same identity, different digest."""

    status = 422
    title = "identity-conflict"


class DigestMismatch(Rejected):
    """The event is not the one that its digest was made for: something altered it on its way."""

    status = 422
    title = "digest-mismatch"


class UnknownReplay(Rejected):
    """A replayed event that isn't known: replay makes no new events."""

    status = 422
    title = "unknown-replay"


class Undelivered(Rejected):
    """The source gave up: the event itself may be sound, and the relay goes on sending it if it is one of ours."""

    status = 422
    title = "undelivered"


class Unauthorized(Rejected):
    """Nobody knows who calls: there is no token, or none that is good."""

    status = 401
    title = "unauthorized"


class Forbidden(Rejected):
    """Who calls is known, and may not do this."""

    status = 403
    title = "forbidden"


class Refused(Rejected):
    """What people ask for can't be had. No sink answers it: to Knative, its status would mean something else."""


class NotFound(Refused):
    """What the request names isn't there, or isn't for the caller to see: the answer is the same."""

    status = 404
    title = "not-found"


class Gone(Refused):
    """It was there once, and can't be given any more."""

    status = 410
    title = "gone"


class NotInLog(Refused):
    """The event is not known to be in the log, so it must not be removed from `events`."""

    status = 409
    title = "not-in-log"


class Unavailable(TwofoldError):
    """A part that is needed is away, full or shutting down: the same request can succeed later."""

    status = 503
    title = "unavailable"
    retriable = True
    retry_after_s: ClassVar[int] = 1


class Unreadable(Unavailable):
    """Somebody changed a stored event in the database so that it can't be shown: the others can."""

    title = "unreadable"
