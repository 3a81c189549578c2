"""Generated input that Twofold must accept: attributes, payloads and events, with odd values too."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from tests.helpers import Raw
from twofold.cloudevents.decode_http import IncomingEvent, decode_http
from twofold.event.model import Event

Json = Any
Attributes = dict[str, str]

NOW = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)
"""The default time of the clock of `publish`."""

_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_LONG = st.sampled_from(["x" * 1024, "~" * 1023 + "!", '"' + "%" * 1000 + '"', "a" + " " * 1022 + "b"])

texts = st.one_of(
    st.text(_PRINTABLE, min_size=1, max_size=20).map(str.strip).filter(bool),
    st.sampled_from(["%41", "%", '"quoted"', 'a\\"b', '"', "\\", "a  b", "null", "true", "1", "ce-id", ";", "a,b"]),
    _LONG,
)
"""Values of attributes."""

words = st.one_of(
    st.text(_PRINTABLE[1:], min_size=1, max_size=20), st.sampled_from(["order.created", "%41", '"', "x" * 1024])
)
"""Values of `type`."""

_PCHAR = st.sampled_from([*"abzAZ09-._~!$&'()*+,;=:@", "%41", "%2f", "%00"])
_SEGMENT = st.lists(_PCHAR, max_size=5).map("".join)
_REST = st.lists(st.one_of(_PCHAR, st.sampled_from("/?")), max_size=6).map("".join)
_SCHEMES = st.sampled_from(["http:", "urn:", "a+b-c.d:", "X:"])
_HOSTS = st.sampled_from(["a", "shop.example", "10.0.0.1", "a-b_c", "[::1]", "[::ffff:1.2.3.4]", "h:80", "[::1]:65535"])


@st.composite
def _hierarchical(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        path = "".join("/" + segment for segment in draw(st.lists(_SEGMENT, max_size=3)))
        return f"{draw(st.one_of(st.just(''), _SCHEMES))}//{draw(_HOSTS)}{path}"
    path = draw(_SEGMENT.filter(bool)) + draw(st.sampled_from(["", "/", "/a", "//b"]))
    start = draw(st.one_of(_SCHEMES, _SCHEMES.map("{}/".format), st.just("/"), st.just("")))
    return start + path if start else path.replace(":", "_")


@st.composite
def sources(draw: st.DrawFn) -> str:
    """Draw a URI reference."""
    query, fragment = draw(st.one_of(st.none(), _REST)), draw(st.one_of(st.none(), _REST))
    rest = ("" if query is None else f"?{query}") + ("" if fragment is None else f"#{fragment}")
    return draw(_hierarchical()) + rest


_UUIDS = st.builds(
    lambda uuid, version: f"{str(uuid)[:14]}{version}{str(uuid)[15:19]}b{str(uuid)[20:]}",
    st.uuids(),
    st.sampled_from("47"),
)
ids = st.one_of(_UUIDS, texts, _UUIDS.map(str.upper))

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
times = st.integers(0, (_LAST - _FIRST) // timedelta(microseconds=1)).map(
    lambda microseconds: (_FIRST + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")
)

_KNOWN = ["serviceversion", "correlationid", "causationid", "userid", "environment", "ipaddress", "useragent"]
_KNOWN += ["eventversion", "subject", "traceparent"]
_EXTENSIONS = st.one_of(
    st.text("abcxyz0189", min_size=1, max_size=8).map("x".__add__),
    st.sampled_from(["partitionkey", "sequence", "key", "1", "x" * 40, "eventid", "sourceeventid", "knativebrokerttl"]),
)
_CONTENT_TYPES = st.sampled_from(
    ["application/json", "text/json", "application/vnd.shop.order+json", "application/json; charset=utf-8", "A/B+JSON"]
)


@st.composite
def attributes(draw: st.DrawFn, text: st.SearchStrategy[str] = texts) -> Attributes:
    """Draw the attributes of a valid event."""
    required = {"specversion": "1.0", "id": draw(ids if text is texts else text), "source": draw(sources())}
    optional = draw(st.dictionaries(st.sampled_from(_KNOWN), text, max_size=4))
    extensions = draw(st.dictionaries(_EXTENSIONS, text, max_size=3))
    fitting = {"type": words, "time": times, "dataschema": sources(), "datacontenttype": _CONTENT_TYPES}
    names = draw(st.sets(st.sampled_from(["time", "dataschema", "datacontenttype"])))
    return required | optional | extensions | {name: draw(fitting[name]) for name in sorted(names | {"type"})}


_NAMES = st.one_of(
    _TEXT.filter(lambda name: "\0" not in name),
    st.sampled_from(["", "$", "$ref", "$id", "$db", "$oid", "$numberLong", "$where", "a.b", ".", "_id", "__proto__"]),
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1, 2**31, -(2**31) - 1, 0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 5e-324, -2.2250738585072014e-308, 1e308, 1.7976931348623157e308, 0.1, 1e16, 1.0]),
    _TEXT,
    st.sampled_from(["\0", "a\0b", "\U0001f600", "\uffff", "\u2028", "", "$ref", "2026-01-01T00:00:00Z"]),
)


def _containers(members: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    reference: dict[str, st.SearchStrategy[Json]] = {"$ref": members, "$id": members}
    return st.one_of(
        st.lists(members, max_size=4),
        st.dictionaries(_NAMES, members, max_size=4),
        st.fixed_dictionaries(reference, optional={"$db": members, "x": members}),
        st.fixed_dictionaries({"$oid": members}),
        st.fixed_dictionaries({"$numberLong": members}),
    )


def nested(depth: int, inner: Json = None) -> dict[str, Json]:
    """Return an object with `depth` levels of objects and lists in turn. The outermost level counts."""
    value: Json = {"v": inner}
    for level in range(depth - 2):
        value = [value] if level % 2 else {"n": value}
    return {"deep": value}


values = st.recursive(_SCALARS, _containers, max_leaves=12)
payloads: st.SearchStrategy[dict[str, Json]] = st.one_of(
    st.dictionaries(_NAMES, values, max_size=5),
    st.fixed_dictionaries({"$ref": values, "$id": values}, optional={"$db": values}),
    st.builds(nested, st.integers(2, 100), _SCALARS),
)
"""Payloads."""


_UNESCAPED = "/:;,=&?#'()*+!@$~"


def binary(attributes: Mapping[str, str], payload: Json) -> tuple[Raw, bytes]:
    """Return headers and body in binary mode, by CloudEvents' HTTP binding."""
    rest = dict(attributes)
    content_type = rest.pop("datacontenttype", "application/json")
    headers = [(b"content-type", content_type.encode())]
    headers += [(f"ce-{name}".encode(), quote(value, safe=_UNESCAPED).encode()) for name, value in rest.items()]
    return headers, json.dumps(payload).encode()


def structured(attributes: Mapping[str, str], payload: Json) -> tuple[Raw, bytes]:
    """Return headers and body in structured mode."""
    body = json.dumps(dict(attributes) | {"data": payload}, ensure_ascii=False)
    return [(b"content-type", b"application/cloudevents+json; charset=UTF-8")], body.encode()


def read(request: tuple[Raw, bytes], now: datetime = NOW) -> Event:
    """Return the event of a producer's request."""
    incoming = decode_http(*request, now, 1000)
    assert isinstance(incoming, IncomingEvent)
    return incoming.event


orders = st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([0, 1, 2**31, 2**53 + 1, 2**63 - 1]))
"""Orders of publication."""


def accepted(event: Event, order: int | None) -> Event:
    """Return the event as a publisher accepts it."""
    return event.model_copy(update={"order": order})


events = st.builds(
    lambda attributes, payload, order: accepted(read(structured(attributes, payload)), order),
    attributes(),
    payloads,
    orders,
)
"""Accepted events."""
