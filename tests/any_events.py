"""Generated CloudEvents in the JSON format: every kind of data, and every allowed character in every attribute."""

import base64
from typing import Any

from hypothesis import strategies as st

from tests.strategies import payloads, sources, values

Json = Any

_NONCHARACTERS = "".join(
    map(chr, [*range(0xFDD0, 0xFDF0), *(plane * 0x10000 + last for plane in range(17) for last in (0xFFFE, 0xFFFF))])
)
_ALLOWED = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=_NONCHARACTERS)
"""The characters that the type `String` of CloudEvents allows: no control characters, no noncharacters."""

_PLANES = st.integers(0, 16).flatmap(
    lambda plane: st.characters(
        min_codepoint=max(0x20, plane * 0x10000),
        max_codepoint=plane * 0x10000 + 0xFFFD,
        exclude_categories=["Cs", "Cc"],
        exclude_characters=_NONCHARACTERS,
    )
)
"""A character of a plane of Unicode, each plane as often as another plane."""

_ODD = st.sampled_from(
    [
        "%41",
        "%",
        "%zz",
        '"quoted"',
        'a\\"b',
        '"',
        "\\",
        "null",
        "?",
        "é",
        "\u00ff",
        "\u0100",
        "\u00a0",
        "\u2028",
        "=?utf-8?",
    ]
)

texts = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12),
    st.text(st.one_of(_PLANES, _ALLOWED), min_size=1, max_size=8),
    st.builds("{}{}{}".format, st.sampled_from(["", " ", "  "]), _ODD, st.sampled_from(["", " ", "  "])),
)
"""Values of attributes that must not be empty."""

_EMPTY_TOO = st.one_of(texts, st.just(""), st.just(" "))

_ODD_SOURCES = st.sampled_from(
    [
        "?x",
        "#f",
        "urn:",
        "//",
        "x:///p",
        "http://h:/",
        "http://[v1.a]/",
        "kafka://a:1,b:2/t",
        "//?q",
        "a:",
        "/p?%41#%42",
    ]
)
_UUIDS = st.uuids().map(str)
_FINER = ["", ".5", ".123", ".1234", ".123456789", ".000000000", ".0004"]
_TIMES = st.builds(
    "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}{}".format,
    st.integers(1971, 2025),
    st.integers(1, 12),
    st.integers(1, 28),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 59),
    st.sampled_from(_FINER),
    st.sampled_from(["Z", "+01:00", "-11:30"]),
)
times = st.one_of(
    _TIMES, st.sampled_from(["2016-12-31T23:59:60Z", "2015-07-01T01:59:60+02:00", "2025-01-01t00:00:00z"])
)

_KNOWN = ["serviceversion", "correlationid", "causationid", "userid", "environment", "ipaddress", "useragent"]
_HOPS = ["tracestate", "baggage", "knativearrivaltime", "knativebrokerttl", "knativehistory"]
_EXTENSIONS = st.one_of(
    st.sampled_from([*_KNOWN, *_HOPS, "digest", "order", "partitionkey", "key"]),
    st.text("abcxyz0189", min_size=1, max_size=8).map("x".__add__),
)
_EXTENSION_VALUES = st.one_of(_EMPTY_TOO, st.booleans(), st.integers(-(2**31), 2**31 - 1))

_JSON_TYPES = st.sampled_from(
    ["application/json", "text/json", "application/vnd.shop.order+json", "application/json; charset=utf-8", "A/B+JSON"]
)
_TEXT_TYPES = st.sampled_from(
    [
        "text/plain",
        "text/html; charset=utf-8",
        "application/xml",
        "text/xml",
        "image/svg+xml",
        "text/csv; header=present",
    ]
)
_LATIN = st.sampled_from(["text/plain; charset=iso-8859-1", 'text/plain;charset="ISO-8859-1"'])
_BYTE_TYPES = st.sampled_from(["application/octet-stream", "image/png", "application/avro", "application/x-protobuf"])

_ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


json_values = st.one_of(values, payloads)
"""JSON values of every type. Some are objects that MongoDB or BSON could take for something else."""

_data: st.SearchStrategy[dict[str, Json]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"data": json_values}),
    st.fixed_dictionaries({"data": json_values, "datacontenttype": _JSON_TYPES}),
    st.fixed_dictionaries({"datacontenttype": st.one_of(_JSON_TYPES, _TEXT_TYPES, _BYTE_TYPES)}),
    st.fixed_dictionaries({"data": _ANY_TEXT, "datacontenttype": st.one_of(_TEXT_TYPES, _BYTE_TYPES)}),
    st.fixed_dictionaries(
        {"data": st.text(st.characters(max_codepoint=0xFF), max_size=20), "datacontenttype": _LATIN},
    ),
    st.fixed_dictionaries(
        {
            "data_base64": st.one_of(st.binary(max_size=40), _ANY_TEXT.map(str.encode)).map(_base64),
            "datacontenttype": st.one_of(_TEXT_TYPES, _LATIN, _BYTE_TYPES),
        }
    ),
    st.fixed_dictionaries({"data_base64": st.binary(max_size=40).map(_base64)}),
)
"""The members with the data: every kind of data, in every form of the JSON format."""


@st.composite
def any_events(draw: st.DrawFn, data: st.SearchStrategy[dict[str, Json]] = _data) -> dict[str, Json]:
    """Draw a valid CloudEvent in the JSON format."""
    event: dict[str, Json] = {
        "specversion": "1.0",
        "id": draw(st.one_of(texts, _UUIDS)),
        "source": draw(st.one_of(sources(), _ODD_SOURCES)),
        "type": draw(texts),
    }
    optional = {
        "subject": texts,
        "time": times,
        "dataschema": st.one_of(sources(), _ODD_SOURCES),
        "eventversion": texts,
    }
    for name in sorted(draw(st.sets(st.sampled_from([*optional])))):
        event[name] = draw(optional[name])
    event |= draw(st.dictionaries(_EXTENSIONS, _EXTENSION_VALUES, max_size=4))
    return event | draw(data)


_MILLISECONDS = st.builds(
    "2025-{:02}-{:02}T01:02:03.{:03}Z".format, st.integers(1, 12), st.integers(1, 28), st.integers(0, 999)
)
_NOT_NULL = json_values.filter(lambda value: value is not None)
_sdk_data: st.SearchStrategy[dict[str, Json]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"data": _NOT_NULL}),
    st.fixed_dictionaries({"data": _NOT_NULL, "datacontenttype": _JSON_TYPES.filter(lambda name: name[0] != "A")}),
    st.fixed_dictionaries({"data": _ANY_TEXT, "datacontenttype": _TEXT_TYPES}),
    st.fixed_dictionaries(
        {"data_base64": st.binary(max_size=40).map(_base64), "datacontenttype": st.one_of(_LATIN, _BYTE_TYPES)}
    ),
)


@st.composite
def sdk_events(draw: st.DrawFn, text: st.SearchStrategy[str] = texts) -> dict[str, Json]:
    """Draw an event that the SDK can hold: with a time, with attributes of text, and without JSON null as its data."""
    event: dict[str, Json] = {"specversion": "1.0", "time": draw(_MILLISECONDS), "source": draw(sources())}
    event |= {name: draw(text) for name in ("id", "type")}
    names = st.sampled_from(["subject", "eventversion", "userid", "tenant", "tracestate", "x1"])
    event |= draw(st.dictionaries(names, text, max_size=4))
    return event | draw(_sdk_data)
