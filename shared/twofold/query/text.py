"""The text of a stored event that a search looks into. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def searchable_text(document: Mapping[str, Any]) -> str:
    """Return the searchable values of a stored event, case-folded, with NUL between them.

    The values are: the id, and the producer's id; the type, version and aggregate; the values of the metadata, and the
    names of its extensions; all names and values of a payload that is not bytes. Strings stand as they are. Numbers,
    `true`, `false` and `null` stand as in JSON.
    """
    fields = [str(document["_id"]), str(document["id"]), document["event_type"], document["event_version"]]
    fields += [document["aggregate_id"]] if document["aggregate_id"] is not None else []
    metadata = {name: value for name, value in document["metadata"].items() if name != "time_assigned"}
    return "\0".join([*fields, *_leaves([*metadata.values()]), *_leaves(document.get("payload", ""))]).casefold()


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, member in value.items():
            yield name
            yield from _leaves(member)
    elif isinstance(value, list):
        for member in value:
            yield from _leaves(member)
    elif not isinstance(value, bytes):
        yield json.dumps(value)
