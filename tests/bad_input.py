"""Requests with bad input and odd input. Tests send them to `decode_http`, and to the running function `publish`."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.helpers import Raw
from tests.strategies import nested
from twofold.errors import DigestMismatch, Invalid, Malformed, Rejected, TooLarge, UnsupportedType
from twofold.event.data import NO_DATA

ID = "00000000-0000-4000-8000-000000000000"
"""The id in the requests. A test with a running function replaces it by a new id."""

MAX_EVENTS = 1000

_STRUCTURED = b"application/cloudevents+json"
_BATCH = b"application/cloudevents-batch+json"


@dataclass(frozen=True)
class Request:
    """The headers and the body of a request."""

    headers: Raw
    body: bytes

    @property
    def served(self) -> Raw:
        """The headers in the form of an HTTP server: names in lower case (ASGI)."""
        return [(name.lower(), value) for name, value in self.headers]

    def with_id(self, new: str) -> "Request":
        """Return the request with another id."""
        old, replacement = ID.encode(), new.encode()
        headers = [(name, value.replace(old, replacement)) for name, value in self.headers]
        return Request(headers, self.body.replace(old, replacement))


@dataclass(frozen=True)
class Bad:
    """A request that is rejected as a whole, with the error, its place, and words of its message."""

    name: str
    request: Request
    error: type[Rejected]
    where: str | None
    says: str
    raw: bool = False
    """True for bytes that an HTTP server rejects before the function, or that no client library sends."""


@dataclass(frozen=True)
class Odd:
    """A request that is accepted, with its payload, and with attributes that the event must have or lack."""

    name: str
    request: Request
    payload: Any = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    absent: Sequence[str] = ()


def _binary(body: bytes | str = b"{}", *more: tuple[str, bytes | str], **changes: str | bytes | None) -> Request:
    """Return a request in binary mode with `changes` to the usual attributes, and with `more` headers.

    None removes an attribute. `content_type` is the header Content-Type.
    """
    usual: dict[str, str | bytes | None] = {"specversion": "1.0", "id": ID, "source": "/shop", "type": "order.created"}
    content_type = changes.pop("content_type", "application/json")
    named = {f"ce-{name}": value for name, value in (usual | changes).items()} | {"content-type": content_type}
    headers = [*((name, value) for name, value in named.items() if value is not None), *more]
    raw = [(name.encode(), value.encode() if isinstance(value, str) else value) for name, value in headers]
    return Request(raw, body.encode() if isinstance(body, str) else body)


def _without(name: str) -> Request:
    changes: dict[str, Any] = {name: None}
    return _binary(**changes)


def _event(**changes: Any) -> dict[str, Any]:
    usual = {"specversion": "1.0", "id": ID, "source": "/shop", "type": "order.created", "data": {}}
    return {name: value for name, value in (usual | changes).items() if value is not ...}


def _structured(**changes: Any) -> Request:
    """Return a request in structured mode with `changes` to the usual members. `...` removes a member."""
    return _json(_event(**changes))


def _json(value: object, content_type: bytes = _STRUCTURED) -> Request:
    return Request([(b"content-type", content_type)], json.dumps(value).encode())


def _body(body: bytes, content_type: bytes = _STRUCTURED) -> Request:
    return Request([(b"content-type", content_type)], body)


def _with_data(data: str) -> Request:
    """Return a request in structured mode with this text as the JSON of its data."""
    return _body(json.dumps(_event(data="DATA")).replace('"DATA"', data).encode())


def _base64(encoded: object, **more: Any) -> Request:
    return _structured(**{"data": ..., "data_base64": encoded} | more)


_DEEP = '{"a":' * 10_000 + "1" + "}" * 10_000
_DEEP_LIST = '{"a":' + "[" * 10_000 + "]" * 10_000 + "}"
_FAR_IN = ("data.deep" + ".n[0]" * 49)[:200] + "..."
_EXTENSIONS = {f"x{number}": "x" * 1000 for number in range(40)}
_DIGEST = "0" * 64
_NO_TEXTS: Mapping[str, object] = {"a list": [{}], "null": None, "a number": 0, "false": False, "an object": {}}

_CONTEXT = [
    *(
        Bad(f"no {name}, in binary mode", _without(name), Malformed, name, "is missing")
        for name in ("id", "source", "type", "specversion")
    ),
    *(
        Bad(f"no {name}, in structured mode", _structured(**{name: ...}), Malformed, name, "is missing")
        for name in ("id", "source", "type", "specversion")
    ),
    Bad("an empty id", _binary(id=""), Malformed, "id", "is missing"),
    Bad("a null id", _structured(id=None), Malformed, "id", "is missing"),
    Bad("specversion 0.3", _binary(specversion="0.3"), Malformed, "specversion", "send CloudEvents 1.0"),
    Bad("specversion 1.0.2", _structured(specversion="1.0.2"), Malformed, "specversion", "send CloudEvents 1.0"),
    Bad("a long specversion", _structured(specversion="9" * 900), Malformed, "specversion", "'9999999999999999'"),
    Bad("specversion as a number", _structured(specversion=1.0), Invalid, "specversion", "be a string"),
    Bad(
        "no attributes", _binary(specversion=None, id=None, source=None, type=None), Malformed, "ce-specversion", "ce-"
    ),
    Bad("nothing at all", Request([], b""), Malformed, "ce-specversion", "not a CloudEvent"),
    Bad("a ce- header alone", Request([(b"ce-", b"1")], b"{}"), Malformed, "id", "is missing"),
    Bad("a ce- header without a name", _binary(b"{}", ("ce-", "1")), Invalid, "''", "1 to 40 lower-case letters"),
    Bad("an empty subject", _structured(subject=""), Invalid, "subject", "at least 1 character"),
]

_TIMES = [
    Bad(f"time {time}", _structured(time=time), Invalid, "time", says)
    for time, says in {
        "yesterday": "RFC 3339",
        "": "RFC 3339",
        "2026-07-01": "RFC 3339",
        "2026-07-01T12:00:00": "RFC 3339",
        "2026-07-01 12:00:00Z": "RFC 3339",
        "2026-07-01T12:00Z": "RFC 3339",
        "20260701T120000Z": "RFC 3339",
        "2026-07-01T12:00:00.Z": "RFC 3339",
        "2026-07-01T12:00:00+02": "RFC 3339",
        "2026-07-01T12:00:00Z\n": "RFC 3339",
        "٢٠٢٦-07-01T12:00:00Z": "RFC 3339",
        "10000-01-01T00:00:00Z": "from 1970 to 9999",
        "9999-12-31T23:59:59-00:01": "from 1970 to 9999",
        "1969-12-31T23:59:59.999Z": "from 1970 to 9999",
        "1970-01-01T00:00:00+00:01": "from 1970 to 9999",
        "0001-01-01T00:00:00+00:01": "from 1970 to 9999",
        "0000-01-01T00:00:00Z": "valid datetime",
        "2026-02-29T00:00:00Z": "valid datetime",
        "2026-13-01T00:00:00Z": "valid datetime",
        "2026-07-01T24:00:00Z": "valid datetime",
        "2016-12-31T23:59:61Z": "valid datetime",
        "2016-12-31T23:58:60Z": "valid datetime",
        "2016-12-31T23:59:60+01:00": "valid datetime",
        "2026-07-01T12:00:00+24:00": "valid datetime",
    }.items()
]

_ATTRIBUTES = [
    Bad("an id over 1 KiB", _binary(id="x" * 1025), Invalid, "id", "at most 1,024"),
    Bad("a source over 1 KiB", _binary(source="/" + "x" * 1024), Invalid, "source", "at most 1,024"),
    Bad("an extension over 1 KiB", _structured(tenant="x" * 1025), Invalid, "tenant", "at most 1,024"),
    Bad("an attribute of 900 KB", _structured(subject="x" * 900_000), Invalid, "subject", "at most 1,024"),
    Bad("attributes over 32 KiB together", _binary(b"{}", **_EXTENSIONS), Invalid, None, "at most 32768 are allowed"),
    Bad(
        "an attribute of 1,025 bytes in UTF-8", _structured(subject="é" * 512 + "x"), Invalid, "subject", "1,024 bytes"
    ),
    Bad(
        "escapes that are no UTF-8",
        _binary(subject="%FF"),
        Malformed,
        "ce-subject",
        "percent-encode its characters in UTF-8",
    ),
    Bad("a control character in a header", _binary(subject=b"a\x01b"), Invalid, "subject", "control", raw=True),
    Bad("a NUL in a header", _binary(subject=b"a\0b"), Invalid, "subject", "control", raw=True),
    Bad("a tab in a header", _binary(subject="a\tb"), Invalid, "subject", "control"),
    Bad("an escaped line end in a header", _binary(subject="a%0D%0Ab"), Invalid, "subject", "control"),
    Bad("an escaped NUL in a header", _binary(subject="a%00b"), Invalid, "subject", "control"),
    Bad("DEL in an attribute", _structured(subject="a\x7fb"), Invalid, "subject", "control"),
    Bad("a C1 control in an attribute", _structured(subject="a\x85b"), Invalid, "subject", "control"),
    Bad("a line end in an attribute", _structured(subject="a\n"), Invalid, "subject", "control"),
    Bad("a noncharacter in an attribute", _structured(x="\ufdd0"), Invalid, "x", "noncharacters"),
    Bad("the last noncharacter", _structured(x="\U0010ffff"), Invalid, "x", "noncharacters"),
    Bad("a reserved attribute", _structured(x="sealed:v1:a"), Invalid, "x", "must not begin with 'sealed:v1:'"),
    Bad(
        "a long content type",
        _structured(datacontenttype="text/" + "x" * 1020),
        UnsupportedType,
        "datacontenttype",
        "1,024",
    ),
    Bad("a lone surrogate in an id", _structured(id="\ud800"), Invalid, "id", "lone surrogate"),
    Bad("a lone surrogate in a source", _structured(source="/\udfff"), Invalid, "source", "lone surrogate"),
    Bad("a lone surrogate in an extension", _structured(x="\ud800"), Invalid, "x", "lone surrogate"),
    Bad("a lone surrogate in a name", _structured(**{"\ud800": "x"}), Invalid, r"'\ud800'", "lower-case letters"),
    Bad(
        "a lone surrogate in the name of a number", _structured(**{"\ud800": 0.5}), Invalid, r"'\ud800'", "be a string"
    ),
    Bad("a source with a space", _structured(source="/a b"), Invalid, "source", "URI reference"),
    Bad("a source with an escaped space", _binary(source="/a%20b"), Invalid, "source", "URI reference"),
    *(
        Bad(f"source {source}", _structured(source=source), Invalid, "source", "URI reference")
        for source in (
            "/%zz",
            "/%",
            "é",
            "1:a",
            ":a",
            "http://[::1",
            "http://[1]",
            "/a[b]",
            "/a\\b",
            "a#b#c",
        )
    ),
    Bad("a dataschema with a space", _structured(dataschema="a b"), Invalid, "dataschema", "URI reference"),
    Bad("a floating-point attribute", _structured(x=0.5), Invalid, "x", "a string, a boolean or an integer"),
    Bad("an object as an attribute", _structured(x={}), Invalid, "x", "a string, a boolean or an integer"),
    Bad("a list as an attribute", _structured(subject=["a"]), Invalid, "subject", "a string, a boolean or an integer"),
    Bad("a number of 2,000 digits as an attribute", _structured(x=10**1999), Invalid, "x", "at most 1,024"),
    Bad("two bad attributes", _structured(x="\n", subject="\n"), Invalid, "subject", "x: must not"),
    *(
        Bad(f"an extension called {name}", _structured(**{name: "1"}), Invalid, name, "1 to 40 lower-case letters")
        for name in ("Tenant", "tenant_id", "tenant-id", "x" * 41, "data_", "a.b")
    ),
    Bad("an extension without a name", _structured(**{"": "1"}), Invalid, "''", "1 to 40 lower-case letters"),
    Bad(
        "an extension with a name of 900 KB",
        _structured(**{"x" * 900_000: "1"}),
        Invalid,
        None,
        "1 to 40 lower-case letters",
    ),
    Bad("a header with an underscore", _binary(b"{}", ("ce-a_b", "1")), Invalid, "a_b", "1 to 40 lower-case letters"),
    Bad(
        "the extension twofolddigest",
        _binary(twofolddigest=_DIGEST),
        Invalid,
        "twofolddigest",
        "only Twofold may set twofolddigest",
    ),
    Bad("the extension twofoldexact", _binary(twofoldexact="e30"), Invalid, "twofoldexact", "only Twofold may set"),
    Bad(
        "the extension twofoldtimeassigned",
        _structured(twofoldtimeassigned="true"),
        Invalid,
        "twofoldtimeassigned",
        "only Twofold may set twofoldtimeassigned",
    ),
    Bad("the extension twofoldorder", _binary(twofoldorder="7"), Invalid, "twofoldorder", "only Twofold may set"),
    Bad("the extension redriveof", _binary(redriveof=ID), Invalid, "redriveof", "only Twofold may set redriveof"),
    Bad("an extension called data", _binary(data="1"), Invalid, "data", "cannot be an extension"),
    Bad("a header twice", _binary(b"{}", ("ce-id", "2")), Malformed, "ce-id", "more than once"),
    Bad("a header twice, with the same value", _binary(b"{}", ("ce-id", ID)), Malformed, "ce-id", "more than once"),
    Bad("a header twice, in other letters", _binary(b"{}", ("CE-Id", "2")), Malformed, "ce-id", "more than once"),
]

_TYPES = [
    Bad(
        "an image without attributes",
        Request([(b"content-type", b"image/png")], b"\x89PNG"),
        Malformed,
        "ce-specversion",
        "not a CloudEvent",
    ),
    Bad(
        "a type without a subtype",
        _binary("a", content_type="text"),
        UnsupportedType,
        "datacontenttype",
        "send one such",
    ),
    Bad(
        "a type in words",
        _structured(datacontenttype="plain text/a"),
        UnsupportedType,
        "datacontenttype",
        "send one such",
    ),
    Bad("CloudEvents in XML", _body(b"<a/>", b"application/cloudevents+xml"), UnsupportedType, "content-type", "xml"),
    Bad(
        "the charset Latin-1",
        _binary("{}", content_type="application/json; charset=ISO-8859-1"),
        UnsupportedType,
        "datacontenttype",
        "iso-8859-1",
    ),
    Bad(
        "the charset UTF-16",
        _body(json.dumps(_event()).encode("utf-16"), _STRUCTURED + b'; charset="UTF-16"'),
        UnsupportedType,
        "datacontenttype",
        "utf-16",
    ),
    Bad(
        "a charset behind a quoted parameter",
        _binary("{}", content_type='application/json; x="charset=utf-8"; charset=UTF-16'),
        UnsupportedType,
        "datacontenttype",
        "utf-16",
    ),
    Bad(
        "a data content type as a header", _binary(datacontenttype="a"), Malformed, "ce-datacontenttype", "Content-Type"
    ),
    Bad(
        "Content-Type twice", _binary("{}", ("content-type", "text/json")), Malformed, "content-type", "more than once"
    ),
]

_JSON = [
    Bad("binary data that is not JSON", _binary('{"a":'), Malformed, "data", "not JSON: Expecting value at line 1"),
    Bad("binary data with something behind it", _binary("{} {}"), Malformed, "data", "Extra data"),
    Bad("binary data in single quotes", _binary("{'a': 1}"), Malformed, "data", "double quotes"),
    Bad("white space for data", _binary(" "), Malformed, "data", "Expecting value"),
    Bad("data with a byte order mark", _binary(b"\xef\xbb\xbf{}"), Malformed, "data", "BOM"),
    Bad("data in Latin-1", _binary(b'{"a":"\xe9"}'), Malformed, "data", "not UTF-8"),
    Bad("data in UTF-16", _binary("{}".encode("utf-16")), Malformed, "data", "not UTF-8"),
    Bad("data in UTF-8 that encodes surrogates", _binary(b'{"a":"\xed\xa0\x80"}'), Malformed, "data", "not UTF-8"),
    Bad("a control character in a JSON string", _binary(b'{"a":"\x01"}'), Malformed, "data", "control character"),
    Bad("a structured event that is not JSON", _body(b"{"), Malformed, "data", "not JSON"),
    Bad("a structured event of nothing", _body(b""), Malformed, "data", "not JSON"),
    Bad("a structured event that is a list", _json([_event()]), Malformed, None, "be an object"),
    Bad("a structured event that is a string", _json("x"), Malformed, None, "be an object"),
    Bad("a structured event that is null", _json(None), Malformed, None, "be an object"),
    *(
        Bad(f"text that is {what}", _structured(data=value, datacontenttype="text/plain"), Invalid, "data", "a string")
        for what, value in _NO_TEXTS.items()
    ),
    Bad("bytes that are an object", _structured(data={}, datacontenttype="image/png"), Invalid, "data", "a string"),
    Bad(
        "text beyond its charset",
        _structured(data="€", datacontenttype="text/plain; charset=us-ascii"),
        Invalid,
        "data",
        "its charset lacks",
    ),
    Bad(
        "text in UTF-16",
        _structured(data="a", datacontenttype="text/plain; charset=utf-16"),
        UnsupportedType,
        "datacontenttype",
        "send the bytes in data_base64",
    ),
    Bad(
        "text with a lone surrogate",
        _structured(data="\ud800", datacontenttype="text/plain"),
        Invalid,
        "data",
        "lone surrogate",
    ),
    *(
        Bad(f"base64 that is {what}", _base64(value), Malformed, "data_base64", "not base64")
        for what, value in {
            "none": "!",
            "cut": "e30",
            "URL-safe": "e30_",
            "beyond ASCII": "é",
            "a lone surrogate": "\ud800",
            "a number": 5,
            "a list": ["e30="],
        }.items()
    ),
    Bad(
        "base64 of what is not JSON",
        _base64(base64.b64encode(b"{").decode(), datacontenttype="text/json"),
        Malformed,
        "data",
        "not JSON",
    ),
    Bad("data and base64", _base64("e30=", data={}), Malformed, "data_base64", "exclude each other"),
    Bad("a name twice in the data", _binary('{"a":1,"a":1}'), Malformed, "data", "'a' stands twice"),
    Bad("a name twice deep in the data", _with_data('{"b":[{"a":1,"c":2,"a":2}]}'), Malformed, "data", "'a'"),
    Bad("an attribute twice", _with_data('{},"id":"2"'), Malformed, "data", "'id' stands twice"),
]

_VALUES = [
    Bad("nesting of 101", _structured(data=nested(101)), Invalid, _FAR_IN, "deeper than 100"),
    Bad("nesting of 10,000", _binary(_DEEP), Invalid, "data", "nests too deep"),
    Bad("nesting of 10,000 without a content type", _binary(_DEEP, content_type=None), Invalid, "data", "too deep"),
    Bad("lists nested 10,000 deep", _binary(_DEEP_LIST), Invalid, "data", "nests too deep"),
    Bad("structured nesting of 10,000", _with_data(_DEEP), Invalid, "data", "nests too deep"),
    Bad(
        "base64 of nesting of 10,000",
        _base64(base64.b64encode(_DEEP.encode()).decode(), datacontenttype="text/json"),
        Invalid,
        "data",
        "too deep",
    ),
    Bad("a lone surrogate in a value", _binary(r'{"a":["\ud800"]}'), Invalid, "data.a[0]", "lone surrogate"),
    Bad("a lone surrogate in a payload name", _binary(r'{"\ud800":1}'), Invalid, r"data.'\ud800'", "lone surrogate"),
    Bad("surrogates in the wrong order", _structured(data={"a": "\ude00\ud83d"}), Invalid, "data.a", "lone surrogate"),
    Bad("NUL in a name", _structured(data={"b": {"a\0": 1}}), Invalid, r"data.b.'a\x00'", "without NUL"),
    *(
        Bad(f"the integer {number}", _binary(f'{{"a":{{"b":[{number}]}}}}'), Invalid, "data.a.b[0]", "64 bits")
        for number in (2**63, -(2**63) - 1, 10**100)
    ),
    Bad("an integer of 5,000 digits", _binary(f'{{"a":{"9" * 5000}}}'), Invalid, "data", "64 bits"),
    Bad(
        "an attribute of 5,000 digits",
        _body(json.dumps(_event(x="X")).replace('"X"', "9" * 5000).encode()),
        Invalid,
        "data",
        "64 bits",
    ),
    *(
        Bad(f"the number {number}", _binary(f'{{"a":{number}}}'), Malformed, "data", f"{number} is not JSON")
        for number in ("NaN", "Infinity", "-Infinity")
    ),
    Bad("NaN as an attribute", _with_data('{},"x":NaN'), Malformed, "data", "NaN is not JSON"),
    Bad("the number 1e400", _binary('{"a":[1e400]}'), Invalid, "data.a[0]", "must be finite"),
    Bad("the number -1e400", _with_data('{"a":-1e400}'), Invalid, "data.a", "must be finite"),
    Bad("1e400 as an attribute", _with_data('{},"x":1e400'), Invalid, "x", "a string, a boolean or an integer"),
]

_BATCHES = [
    Bad("a batch that is no list", _json(_event(), _BATCH), Malformed, None, "JSON array"),
    Bad("a batch of too many", _json([1] * (MAX_EVENTS + 1), _BATCH), TooLarge, None, "at most 1000"),
    Bad("a batch that is not JSON", _body(b"[{}", _BATCH), Malformed, "data", "not JSON"),
    Bad("a batch with NaN", _body(b'[{"data":{"a":NaN}}]', _BATCH), Malformed, "data", "NaN is not JSON"),
    Bad("a batch nested 10,000 deep", _body(b"[" * 10_000 + b"]" * 10_000, _BATCH), Invalid, "data", "too deep"),
]

_REPLAYS = [
    Bad(
        "a replay without a digest",
        _binary(replayid="r", time="2026-07-01T00:00:00Z"),
        Malformed,
        "twofolddigest",
        "only records that Twofold wrote",
    ),
    Bad(
        "a replay without a time",
        _structured(replayid="r", twofolddigest=_DIGEST),
        Malformed,
        "time",
        "only records that Twofold wrote",
    ),
    Bad(
        "a replay with another digest",
        _structured(replayid="r", twofolddigest=_DIGEST, time="2026-07-01T00:00:00Z", twofoldorder="7"),
        DigestMismatch,
        "twofolddigest",
        "belongs to other content",
    ),
    Bad(
        "a replay without an order",
        _structured(replayid="r", twofolddigest=_DIGEST, time="2026-07-01T00:00:00Z"),
        Malformed,
        "twofoldorder",
        "only records that Twofold wrote",
    ),
    *(
        Bad(
            f"a replay with the order {order}",
            _structured(replayid="r", twofolddigest=_DIGEST, time="2026-07-01T00:00:00Z", twofoldorder=order),
            Malformed,
            "twofoldorder",
            "below 2^63",
        )
        for order in ("-1", "01", str(2**63), "x")
    ),
    Bad(
        "a replay with a wrong twofoldtimeassigned",
        _structured(replayid="r", twofolddigest=_DIGEST, time="2026-07-01T00:00:00Z", twofoldtimeassigned=False),
        Malformed,
        "twofoldtimeassigned",
        "true or absent",
    ),
]

BAD = [*_CONTEXT, *_TIMES, *_ATTRIBUTES, *_TYPES, *_JSON, *_VALUES, *_BATCHES, *_REPLAYS]


def _payload(name: str, payload: Mapping[str, Any]) -> Odd:
    return Odd(name, _structured(data=payload), payload)


ODD = [
    _payload("$-names", {"$set": {"a": 1}, "$where": "1", "a": {"$gt": ""}, "$": 1}),
    _payload("dots in names", {"a.b": 1, ".": {"..": 2}, "a": {"b": 3}}),
    _payload("empty names", {"": {"": [{"": None}]}}),
    _payload("MongoDB's extended JSON", {"a": {"$oid": "x"}, "b": {"$numberLong": "1"}, "c": {"$date": 0}}),
    _payload("a reference", {"a": {"$ref": "c", "$id": 1, "$db": "d", "more": [{"$ref": "c", "$id": None}]}}),
    _payload("a reference with a null database", {"a": {"$ref": "c", "$id": 1, "$db": None}}),
    _payload("what looks like a reference", {"a": {"$ref": 5, "$id": {"$ref": [], "$id": 1}}}),
    _payload("a reference at the top", {"$ref": "c", "$id": 1, "$db": None}),
    _payload("names of the document", {"_id": 1, "seq": {"t": 0}, "digest": None, "outbox": {}}),
    _payload("names of Python", {"__proto__": 1, "__class__": {"constructor": []}}),
    _payload("NUL in values", {"a": "\0", "b": ["x\0y"]}),
    _payload("control characters in names and values", {"\x01\n": "\x7f\x80\u2028\ufeff"}),
    _payload("characters beyond the BMP", {"\U0001f600": "\U0010ffff\U00010000"}),
    _payload("noncharacters", {"\uffff": "\ufffe\ufdd0"}),
    _payload("composed and decomposed letters", {"\u00e9": 1, "e\u0301": 2}),
    _payload("the largest integers", {"a": [2**63 - 1, -(2**63), 2**53 + 1, 2**31, -(2**31) - 1]}),
    _payload("odd floating-point numbers", {"a": [-0.0, 5e-324, 1e308, 0.1, 1e16, 1.0, 1e22, -2.5e-7]}),
    _payload("one and one point nought", {"a": 1, "b": 1.0, "c": True}),
    _payload("nesting of 100", nested(100)),
    _payload("a long name", {"x" * 100_000: 1}),
    _payload("20,000 names", {f"n{number}": number for number in range(20_000)}),
    _payload("text of 500 kB", {"a": "\U0001f600" * 125_000}),
    *(
        Odd(f"JSON that is {what}", _binary(json.dumps(value)), value)
        for what, value in {"a list": [1], "a string": "x", "null": None, "a number": 1.5, "true": True}.items()
    ),
    Odd("JSON null in structured mode", _structured(data=None), None),
    Odd("binary mode without data", _binary(""), NO_DATA),
    Odd("structured mode without data", _structured(data=...), NO_DATA),
    Odd("no content type", _binary('{"a":1}', content_type=None), {"a": 1}),
    Odd("no content type and no JSON", _binary(b"{\xff", content_type=None), b"{\xff"),
    Odd("base64 of JSON", _base64("eyJhIjoxfQ==", datacontenttype="text/json"), {"a": 1}),
    Odd("base64 without a type", _base64("eyJhIjoxfQ=="), b'{"a":1}'),
    Odd("null base64", _base64(None, data={"a": 1}), {"a": 1}),
    Odd("base64 and null data", _base64("/w==", data=None), b"\xff"),
    Odd("base64 of nothing", _base64(""), NO_DATA),
    Odd("text", _binary("ä€", content_type="text/plain"), "ä€", {"datacontenttype": "text/plain"}),
    Odd("text of nothing", _structured(data="", datacontenttype="text/plain"), NO_DATA),
    Odd("text in Latin-1", _binary(b"\xe4", content_type="text/plain; charset=ISO-8859-1"), "ä"),
    Odd("text that is not valid in its charset", _binary(b"\xff", content_type="text/plain"), b"\xff"),
    Odd("text in another charset", _binary(b"a\0", content_type="text/plain; charset=utf-16"), b"a\0"),
    Odd("text in base64", _base64("YQ==", datacontenttype="text/plain"), "a"),
    Odd("XML", _binary("<a/>", content_type="application/soap+xml"), "<a/>"),
    Odd("an image", _binary(b"\x89PNG", content_type="image/png"), b"\x89PNG", {"datacontenttype": "image/png"}),
    Odd("bytes in a string", _structured(data="é", datacontenttype="application/pdf"), "é".encode()),
    Odd(
        "an event within an event", _structured(data={"a": 1}, datacontenttype="application/cloudevents+json"), {"a": 1}
    ),
    Odd("Latin-1 in a header", _binary(subject=b"caf\xe9"), attributes={"subject": "café"}),
    Odd("UTF-8 in a header", _binary(subject="€"), attributes={"subject": "€"}),
    Odd("escaped UTF-8 in a header", _binary(subject="%E2%82%AC"), attributes={"subject": "€"}),
    Odd("a character beyond ASCII", _structured(subject="\U0001f600"), attributes={"subject": "\U0001f600"}),
    Odd("white space at the ends", _binary(subject="%20a%20"), attributes={"subject": " a "}),
    Odd("a type with a space", _structured(type="order created"), attributes={"type": "order created"}),
    Odd("an empty extension", _structured(x="", correlationid=""), attributes={"x": "", "correlationid": ""}),
    *(
        Odd(f"source {source}", _structured(source=source), attributes={"source": source})
        for source in ("//", "http://", "urn:", "?x", "#f", "file:///x", "//u@h:80/", "http://[v1.a]/")
    ),
    Odd("the extension digest", _structured(digest="x"), attributes={"digest": "x"}),
    Odd("white space around JSON", _binary(' \r\n\t{ "a" : 1 } \n'), {"a": 1}),
    Odd("the integer -0", _binary('{"a":-0}'), {"a": 0}),
    Odd(
        "a percent-encoded header",
        _binary(subject="a%20%22b%25%7e%2525"),
        attributes={"subject": 'a "b%~%25'},
    ),
    Odd("a percent sign that escapes nothing", _binary(subject="100%"), attributes={"subject": "100%"}),
    Odd("a quoted header", _binary(subject=r'"a \"b\" \\ c"'), attributes={"subject": r'a "b" \ c'}),
    Odd("a quotation mark alone", _binary(subject='"'), attributes={"subject": '"'}),
    Odd("header names in capitals", _binary("{}", ("CE-TenantId", "t")), attributes={"tenantid": "t"}),
    Odd("an attribute of 1,024", _binary(subject="x" * 1024, tenant="y" * 1024), attributes={"subject": "x" * 1024}),
    Odd("an extension name of 40", _binary(**{"x" * 40: "1"}), attributes={"x" * 40: "1"}),
    Odd("null attributes", _structured(subject=None, time=None, x=None), absent=["subject", "x"]),
    Odd(
        "booleans and integers",
        _structured(a=True, b=False, c=-5, d=0),
        attributes={"a": "true", "b": "false", "c": "-5"},
    ),
    Odd("an integer as an attribute", _structured(subject=7), attributes={"subject": "7"}),
    Odd(
        "attributes of another transport",
        _binary(knativekafkapartition="1", knativekafkaoffset="2"),
        attributes={"knativekafkapartition": "1", "knativekafkaoffset": "2"},
    ),
    Odd(
        "the dead letter of another source, with as much of an answer as Knative keeps",
        _binary(knativeerrordest="http://sink/", knativeerrorcode="500", knativeerrordata="YWJj" * 342),
        attributes={"knativeerrordest": "http://sink/", "knativeerrorcode": "500"},
        absent=["knativeerrordata"],
    ),
    Odd(
        "values of hops that no attribute may have",
        _structured(traceparent="a\nb", baggage="x" * 40_000, tracestate="sealed:v1:x", knativehistory="ok"),
        attributes={"knativehistory": "ok"},
        absent=["traceparent", "baggage", "tracestate"],
    ),
    Odd(
        "headers of hops that are no text, or stand twice",
        _binary("{}", ("ce-traceparent", "b"), ("ce-baggage", "%FF"), traceparent="a"),
        {},
        attributes={"traceparent": "a"},
        absent=["baggage"],
    ),
    Odd("text/json", _binary(content_type="text/json"), attributes={"datacontenttype": "text/json"}),
    Odd(
        "a +json type",
        _structured(datacontenttype="application/vnd.shop+json"),
        attributes={"datacontenttype": "application/vnd.shop+json"},
    ),
    Odd("a charset", _binary('{"a":"é"}', content_type='application/json; charset="UTF-8"'), {"a": "é"}),
    Odd("the first moment", _structured(time="1970-01-01T00:00:00Z"), attributes={"time": "1970-01-01T00:00:00.000Z"}),
    Odd(
        "the last moment",
        _structured(time="9999-12-31T23:59:59.999Z"),
        attributes={"time": "9999-12-31T23:59:59.999Z"},
    ),
    Odd(
        "lower-case t and z",
        _structured(time="2026-07-01t12:00:00z"),
        attributes={"time": "2026-07-01T12:00:00.000Z"},
    ),
    Odd(
        "nanoseconds, which are kept",
        _structured(time="2026-07-01T12:00:00.123999999Z"),
        attributes={"time": "2026-07-01T12:00:00.123999999Z"},
    ),
    Odd(
        "a leap second",
        _structured(time="2017-01-01T00:59:60+01:00"),
        attributes={"time": "2017-01-01T00:59:60+01:00"},
    ),
    Odd(
        "zeros beyond milliseconds",
        _structured(time="2026-07-01T12:00:00.120000Z"),
        attributes={"time": "2026-07-01T12:00:00.120Z"},
    ),
    Odd(
        "an offset over midnight",
        _structured(time="2026-07-01T00:30:00+01:00"),
        attributes={"time": "2026-06-30T23:30:00.000Z"},
    ),
    Odd(
        "the largest offset",
        _structured(time="2026-07-01T00:00:00-23:59"),
        attributes={"time": "2026-07-01T23:59:00.000Z"},
    ),
]
"""Odd requests that are accepted. Their events are stored equal."""

ODD_BATCH = _json(
    [_event(), _event(id="b", time="never"), 5, _event(id="c", data={"a": "\ud800"}), _event(id="d")], _BATCH
)
"""A batch with three bad events between two good events."""
