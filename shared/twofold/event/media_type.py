"""TODO module."""

from twofold.errors import UnsupportedType


def media_type(content_type: str) -> str:
    """The type without its parameters, in lower case. Raises `UnsupportedType` for a charset that JSON has not."""
    media, _, parameters = content_type.partition(";")
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip().strip('"')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedType(f"charset {charset!a} is not read, only UTF-8", "datacontenttype")
    return media.strip().lower()


def check_json_type(media: str) -> None:
    """Raise `UnsupportedType` unless `media` is that of JSON, and not that of a CloudEvent around it.

    KafkaSource would take the payload of a record with such a type for the event itself.
    """
    is_json = media in ("", "application/json", "text/json") or media.endswith("+json")
    if not is_json or media.startswith("application/cloudevents"):
        raise UnsupportedType(f"data of type {media!a} is not stored, only JSON objects", "datacontenttype")
