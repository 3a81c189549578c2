"""Content types of payloads: only JSON in UTF-8. Pure."""

import re

from twofold.errors import UnsupportedType

_PARAMETER = re.compile(r';\s*([^\s;=]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
"""A parameter (RFC 9110, section 5.6.6): its name, and its value as a token or as a quoted string."""
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_CHARSETS = ("", "utf-8", "utf8", "us-ascii")


def media_type(content_type: str) -> str:
    """Return the type without its parameters, in lower case. Raises `UnsupportedType` for a charset except UTF-8."""
    media, separator, parameters = content_type.partition(";")
    if "charset" in parameters.lower():  # the other parameters have no meaning here
        for name, value in _PARAMETER.findall(separator + parameters):
            if name.lower() == "charset" and (charset := _unquoted(value).lower()) not in _CHARSETS:
                raise UnsupportedType(f"charset {charset!a} is not supported: use UTF-8", "datacontenttype")
    return media.strip().lower()


def _unquoted(value: str) -> str:
    value = value.strip()
    return _QUOTED_PAIR.sub(r"\1", value[1:-1]) if len(value) > 1 and value[0] == value[-1] == '"' else value


def check_json_type(media: str) -> None:
    """Check the type of a payload. Raises `UnsupportedType` unless it is JSON, and for a CloudEvent's type.

    With a CloudEvent's type, KafkaSource would take the payload for the event itself.
    """
    is_json = media in ("", "application/json", "text/json") or media.endswith("+json")
    if not is_json or media.startswith("application/cloudevents"):
        raise UnsupportedType(f"data of type {media!a} is not supported: send a JSON object", "datacontenttype")
