"""The rules of Java and Vert.x for strings, as far as KafkaSource depends on them. Pure.

Sources: OpenJDK 17 and vertx-core 4.5.27. The rules were run against both. The data plane of release 1.23
names 4.5.21 in its requests.
"""

import calendar
import functools
import re
from ipaddress import AddressValueError, IPv6Address

# Beyond ASCII, `java.net.URI` takes every visible character: C1 controls and Unicode spaces are refused.
_VISIBLE = "\u00a1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff\u3001-\U0010ffff"
_UNRESERVED = r"A-Za-z0-9_\-!.~'()*"


def _run_of(characters: str) -> re.Pattern[str]:
    return re.compile(f"(?:[{_UNRESERVED}{characters}{_VISIBLE}]|%[0-9A-Fa-f]{{2}})*")


_SCHEME = re.compile(r"([^/?#:]*):")
_SCHEME_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_ANYTHING = _run_of(r";/?:@&=+$,\[\]")  # the query, the fragment, and the part behind an opaque scheme
_PATH = _run_of(";/:@&=+$,")
_REGISTRY = _run_of("$,;:@&=+")
_USER = _run_of(";:&=+$,")
_IPV6_SERVER = re.compile(r"(?:([^@]*)@)?\[([0-9A-Fa-f:.]+)(?:%[A-Za-z0-9_.]+)?\](?::([0-9]*))?")
_JAVA_INT_MAX = 2**31 - 1

_TIME = re.compile(
    r"([+-]?\d{4,9})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{0,9}))?)?"
    r"(?:[Zz]|([+-])(\d\d)(?::(\d\d)(?::(\d\d))?)?)",
    re.ASCII,
)
_YEAR = re.compile(r"\d{4}|-(?!0+\Z)\d{4,9}|\+\d{5,9}", re.ASCII)
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MAX_OFFSET = (18, 0, 0)

# io.vertx.core.http.impl.HttpUtils.validateHeaderValue: of control characters a tab, and CR LF before white space.
_REFUSED_IN_HEADER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\n(?![ \t])")
_LAST_LATIN_1 = 0xFF
_LAST_IN_ONE_JAVA_CHAR = 0xFFFF


class RefusedByVertx(ValueError):
    """Vert.x throws on this header value, so it sends no request."""


@functools.lru_cache(maxsize=1024)  # sources repeat
def java_accepts_uri(value: str) -> bool:
    """Return True if `new java.net.URI(value)` returns: RFC 2396 with the deviations of OpenJDK 17.

    CloudEvents' Java SDK reads `source` and `dataschema` with it. A refused value makes the record a plain record.
    """
    scheme = _SCHEME.match(value)
    if scheme is None:
        return _is_hierarchical(value)
    if not _SCHEME_NAME.fullmatch(scheme[1]):
        return False
    rest = value[scheme.end() :]
    if rest.startswith("/"):
        return _is_hierarchical(rest)
    opaque, _, fragment = rest.partition("#")
    return bool(opaque) and bool(_ANYTHING.fullmatch(opaque)) and bool(_ANYTHING.fullmatch(fragment))


def _is_hierarchical(rest: str) -> bool:
    """Return True for `[//authority]path[?query][#fragment]`. A final `//` lacks its authority."""
    if rest == "//":
        return False
    before_fragment, _, fragment = rest.partition("#")
    path, _, query = before_fragment.partition("?")
    if path.startswith("//"):
        authority, slash, path = path[2:].partition("/")
        if not _is_authority(authority):
            return False
        path = slash + path
    return bool(_PATH.fullmatch(path) and _ANYTHING.fullmatch(query) and _ANYTHING.fullmatch(fragment))


def _is_authority(authority: str) -> bool:
    """Return True for a registry name (a plain `host:port` is a registry name) or a server with an IPv6 literal."""
    if _REGISTRY.fullmatch(authority):
        return True
    server = _IPV6_SERVER.fullmatch(authority)
    if server is None or not _USER.fullmatch(server[1] or ""):
        return False
    try:
        IPv6Address(server[2])
    except AddressValueError:
        return False
    return int(server[3] or 0) <= _JAVA_INT_MAX


def java_time(value: str) -> str | None:
    """Return `ISO_OFFSET_DATE_TIME.format(OffsetDateTime.parse(value))`; None if it throws.

    The data plane parses `time` and writes it again: no trailing zeros, always seconds, an upper-case T and Z.
    """
    found = _TIME.fullmatch(value)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, *offset = found.groups()
    second = second or "00"
    zone = [int(part or 0) for part in offset]
    is_valid = (
        _is_date(year, int(month), int(day))
        and _is_time(int(hour), int(minute), int(second))
        and _is_time(*zone)
        and tuple(zone) <= _MAX_OFFSET
    )
    if not is_valid:
        return None
    digits = (fraction or "").rstrip("0")
    written = f"{_written_year(int(year))}-{month}-{day}T{hour}:{minute}:{second}" + (f".{digits}" if digits else "")
    return written + _written_zone(sign, *zone)


def _written_year(year: int) -> str:
    return f"{year:+}" if year > 9999 else f"{year:0{5 if year < 0 else 4}}"


def _written_zone(sign: str, hours: int, minutes: int, seconds: int) -> str:
    if not (hours or minutes or seconds):
        return "Z"
    return f"{sign}{hours:02}:{minutes:02}" + (f":{seconds:02}" if seconds else "")


def _is_date(year: str, month: int, day: int) -> bool:
    """Return True for a date that Java reads: a year has four digits, or more digits and a sign."""
    if not _YEAR.fullmatch(year) or not 1 <= month <= 12:
        return False
    leap_day = month == 2 and calendar.isleap(int(year))
    return 1 <= day <= _DAYS[month - 1] + leap_day


def _is_time(hour: int, minute: int, second: int) -> bool:
    return hour <= 23 and minute <= 59 and second <= 59


def header_bytes(value: str) -> bytes:
    """Return the bytes that Netty writes for a header value: a byte for a Java char, `?` for a char above U+00FF.

    Netty neither percent-encodes nor strips white space. Raises `RefusedByVertx`.
    """
    if _REFUSED_IN_HEADER.search(value):
        raise RefusedByVertx(f"control character in a header value: {value!r}")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return "".join(map(_netty_char, value)).encode("latin-1")


def _netty_char(character: str) -> str:
    code = ord(character)
    if code <= _LAST_LATIN_1:
        return character
    return "?" if code <= _LAST_IN_ONE_JAVA_CHAR else "??"
