"""Query strings: a known parameter gets its type, and a wrong parameter is an error that names it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from twofold.cloudevents.decode_http import decode_structured
from twofold.errors import Forbidden, Invalid, Malformed
from twofold.query.filters import Filter
from twofold.query.limits import MAX_LIMIT, MAX_TYPES
from twofold.query.parameters import parse_query
from twofold.web.api import NoParameters


def rejected(query: str) -> tuple[Malformed, list[str]]:
    with pytest.raises(Malformed) as caught:
        parse_query(query, Filter)
    return caught.value, [problem.where for problem in caught.value.problems]


def test_every_filter_is_parsed() -> None:
    query = (
        "type=order.created&type=order.paid&aggregate=order-7&correlation=c%201&user=u&service=%2Fshop&text=%C3%A9"
        "&from=2026-07-01T12:00:00Z&to=2026-07-01T14:00:00%2B01:00&order=oldest&limit=5"
    )
    wanted = parse_query(query, Filter)
    assert wanted.types == ("order.created", "order.paid")
    assert (wanted.aggregate, wanted.correlation, wanted.user, wanted.service) == ("order-7", "c 1", "u", "/shop")
    assert (wanted.text, wanted.order, wanted.limit) == ("é", "oldest", 5)
    assert wanted.since is not None
    assert wanted.until is not None
    assert (wanted.until - wanted.since).total_seconds() == 3600


@pytest.mark.guarantee("R23", "R30")
@pytest.mark.parametrize(
    "query",
    [
        "user_id=x",
        "user[$ne]=x",
        "user%5B%24ne%5D=",
        "$where=1",
        "pipeline=[]",
        "skip=5",
        "sort=_id",
        "Limit=5",
        "all=true",
        "include_all_users=1",
    ],
)
def test_the_error_names_an_unknown_parameter(query: str) -> None:
    """Operators in brackets, raw pipelines, skips, sort fields and flags are unknown names."""
    error, named = rejected(query)
    assert error.status == 400
    assert [name.replace("%5B%24ne%5D", "[$ne]") for name in named] == [
        query.split("=", 1)[0].replace("%5B%24ne%5D", "[$ne]")
    ]


def test_an_operation_without_parameters_says_so() -> None:
    with pytest.raises(Malformed, match="this operation has no parameters: remove this parameter"):
        parse_query("x=1", NoParameters)


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e3", "10.0", "1_0", " 5", "", "٣", "9" * 30, "NaN"])
def test_an_invalid_limit_is_rejected(limit: str) -> None:
    """0 and negative numbers do not mean "unlimited"."""
    assert rejected(f"limit={limit}")[1] == ["limit"]


def test_the_largest_limit_is_valid() -> None:
    assert parse_query(f"limit={MAX_LIMIT}", Filter).limit == MAX_LIMIT


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("order=_id", "order"),
        ("order=newest&order=oldest", "order"),
        ("user=a&user=b", "user"),
        ("user=", "user"),
        ("type=", "type"),
        ("from=yesterday", "from"),
        ("from=1", "from"),
        ("from=2026-07-01", "from"),
        ("from=2026-07-01T12:00:00", "from"),
        ("from=2026-13-01T12:00:00Z", "from"),
        ("from=1969-12-31T23:59:59Z", "from"),
        ("to=9999-12-31T23:59:59-01:00", "to"),
        ("to=9999-12-31T23:59:59.999999Z", "to"),
        ("from=2026-07-02T00:00:00Z&to=2026-07-01T00:00:00Z", "from"),
        ("text=a%00b", "text"),
        (f"text={'x' * 201}", "text"),
        (f"user={'x' * 1025}", "user"),
        ("user=%ED%A0%80", "query"),
        ("user=%ff", "query"),
        ("user", "query"),
        ("&", "query"),
        ("&".join(f"type=t{n}" for n in range(MAX_TYPES + 1)), "type"),
        ("&".join(f"type=t{n}" for n in range(300)), "query"),
        ("cursor=abc", "cursor"),
    ],
)
def test_the_error_names_a_wrong_parameter(query: str, where: str) -> None:
    error, named = rejected(query)
    assert error.status == 400
    assert named == [where]


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize(
    "time",
    [
        "2026-07-01%2012:00:00Z",
        "20260701T120000Z",
        "2026-W27-3T12:00:00Z",
        "2026-07-01T12Z",
        "2026-07-01T12:00Z",
        "2026-07-01T12:00:00.Z",
        "2026-07-01T12:00:00,5Z",
        "2026-07-01T12:00:00%2B01",
        "2026-07-01T12:00:00%2B0100",
        "2026-07-01T12:00:00%2B01:00:30",
        "2026-07-01T12:00:00Z%0A",
        "2026-07-0%D9%A1T12:00:00Z",
    ],
)
def test_a_time_outside_rfc_3339_is_refused(time: str) -> None:
    """Python reads most of these times."""
    rejection, named = rejected(f"from={time}")
    assert named == ["from"]
    assert "RFC 3339" in rejection.detail


@pytest.mark.guarantee("R23")
@pytest.mark.parametrize(
    ("given", "time"),
    [
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-07-01t12:00:00z", datetime(2026, 7, 1, 12, tzinfo=UTC)),
        ("2026-07-01T12:00:00.5-05:30", datetime(2026, 7, 1, 17, 30, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_time_of_rfc_3339_becomes_a_time_of_utc(given: str, time: datetime) -> None:
    since = parse_query(f"from={given}", Filter).since
    assert since == time
    assert since.tzinfo is UTC


@pytest.mark.guarantee("R23")
def test_bytes_and_text_of_a_query_are_read_alike() -> None:
    assert parse_query(b"user=caf%C3%A9", Filter).user == parse_query("user=caf%C3%A9", Filter).user == "café"


@pytest.mark.guarantee("G9", "R31")
def test_a_user_is_in_every_query_of_their_own() -> None:
    assert parse_query("", Filter, user="ann").user == parse_query("user=ann", Filter, user="ann").user == "ann"
    with pytest.raises(Forbidden) as refusal:
        parse_query("user=bob", Filter, user="ann")
    assert [problem.where for problem in refusal.value.problems] == ["user"]


@pytest.mark.guarantee("R24")
def test_a_filter_becomes_a_query_of_its_fields() -> None:
    wanted = parse_query("type=b&type=a&type=b&from=2026-07-01T00:00:00Z&to=2026-07-02T00:00:00Z&user=u", Filter)
    times = {"$gte": wanted.since, "$lt": wanted.until}
    assert wanted.query() == {"event_type": {"$in": ["a", "b"]}, "metadata.user_id": "u", "timestamp": times}
    assert parse_query("type=a", Filter).query() == {"event_type": "a"}
    assert parse_query("", Filter).query() == {}


def test_the_error_names_every_wrong_parameter() -> None:
    assert rejected("limit=0&order=up&from=x")[1] == ["from", "order", "limit"]


def test_the_error_does_not_show_the_value() -> None:
    """The value may be a secret in the wrong place."""
    error, _ = rejected("from=s3cr3t&order=s3cr3t&cursor=s3cr3t")
    assert "s3cr3t" not in error.detail


@pytest.mark.parametrize(
    ("given", "bound"),
    [("12:00:00.0001Z", ".001000"), ("12:00:00.001Z", ".001000"), ("12:00:00.000999Z", ".001000"), ("12:00:00Z", "")],
)
def test_a_bound_finer_than_a_millisecond_is_rounded_up(given: str, bound: str) -> None:
    """Stored times are whole milliseconds, so "from .0001" selects the same events as "from .001"."""
    wanted = parse_query(f"from=2026-07-01T{given}", Filter)
    assert wanted.since is not None
    assert wanted.since.isoformat() == f"2026-07-01T12:00:00{bound}+00:00"


@pytest.mark.guarantee("R30")
@pytest.mark.parametrize("value", ["$ne", '{"$ne": null}', "{$gt: ''}", "^.*$", "$where", "a.*", "[1]", "null", "true"])
def test_every_value_stays_a_string_in_the_query(value: str) -> None:
    """MongoDB compares with the value from the URL, and never runs it as an operator."""
    wanted = Filter.model_validate({"type": (value,), "user": value, "aggregate": value, "correlation": value})
    query: dict[str, Any] = Filter.model_validate(wanted.model_dump() | {"service": value}).query()
    assert set(query.values()) == {value}
    assert not any(name.startswith("$") for name in query)


@pytest.mark.fault("C13")
@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-07-01T12:00:00.123456789Z", 124),  # Go's RFC3339Nano
        ("2026-07-01T12:00:00.1230000Z", 123),  # .NET's "o"
        ("2026-07-01T12:00:00.1230001Z", 124),
        ("2026-07-01T12:00:00.123000000000000000001Z", 124),
        ("2026-07-01T12:00:00.1Z", 100),
    ],
)
def test_a_fraction_may_have_any_number_of_digits_as_for_producers(text: str, milliseconds: int) -> None:
    """A bound is rounded up to the milliseconds of stored times, so no finer event is on its wrong side."""
    since = parse_query(f"from={text}", Filter).since
    assert since == datetime(2026, 7, 1, 12, 0, 0, milliseconds * 1000, tzinfo=UTC)
    body = {"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "time": text, "data": {}}
    stored = decode_structured(json.dumps(body).encode(), datetime.now(UTC)).event.timestamp
    assert since - stored < timedelta(milliseconds=2)


@pytest.mark.fault("C13")
@pytest.mark.parametrize("text", ["2026-02-30T12:00:00Z", "2026-07-01", "2026-07-01T12:00:00", "20260701T120000Z"])
def test_readers_and_producers_refuse_the_same_times(text: str) -> None:
    assert rejected(f"from={text}")[1] == ["from"]
    body = {"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "time": text, "data": {}}
    with pytest.raises(Invalid, match="RFC 3339"):
        decode_structured(json.dumps(body).encode(), datetime.now(UTC))


@pytest.mark.fault("C13")
@pytest.mark.parametrize("name", ["from", "to"])
def test_a_plus_that_became_a_space_is_named(name: str) -> None:
    """In a query string, `+` is a space."""
    error, named = rejected(f"{name}=2026-07-01T12:00:00+02:00")
    assert named == [name]
    assert "%2B" in error.detail
    given = parse_query(f"{name}=2026-07-01T12:00:00%2B02:00", Filter)
    assert datetime(2026, 7, 1, 10, tzinfo=UTC) in (given.since, given.until)
