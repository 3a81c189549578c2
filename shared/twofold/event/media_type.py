"""Content types of payloads: only JSON in UTF-8. Pure."""

from twofold.errors import UnsupportedType


def media_type(content_type: str) -> str:
    """Return the type without its parameters, in lower case. Raises `UnsupportedType` for a charset except UTF-8."""
    media, _, parameters = content_type.partition(";")
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip().strip('"')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedType(f"charset {charset!a} is not supported: use UTF-8", "datacontenttype")
    return media.strip().lower()


def check_json_type(media: str) -> None:
    """Check the type of a payload. Raises `UnsupportedType` unless it is JSON, and for a CloudEvent's type.

    With a CloudEvent's type, KafkaSource would take the payload for the event itself.
    """
    is_json = media in ("", "application/json", "text/json") or media.endswith("+json")
    if not is_json or media.startswith("application/cloudevents"):
        raise UnsupportedType(f"data of type {media!a} is not supported: send a JSON object", "datacontenttype")
