"""What was accepted against what the servers hold, as sets. Pure, so that each way to be wrong can be tried."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]
Key = tuple[str, object]


@dataclass(frozen=True)
class Findings:
    """How many events are lost, doubled or differing, or are there without having been accepted."""

    lost: int
    doubled: int
    differing: int
    unexpected: int


def compare(accepted: Iterable[Mapping[str, Any]], events: Sequence[Document], log: Sequence[Document]) -> Findings:
    """Compare the events that got a 2xx, in CloudEvents' JSON format, with the documents of both collections.

    An event is recognised by its source and the marker in its payload, never by `_id`: the server keeps `_id` unique,
    so one event stored under two ids would not be seen by it.

    `lost` events are missing from either collection. `doubled` counts each document beyond an event's first in a
    collection. `differing` events have two ids or two digests, or are not what was sent.
    """
    sent = {(event["source"], event["data"]["n"]): event for event in accepted}
    by_key = [_first_of_each(events), _first_of_each(log)]
    return Findings(
        lost=sum(any(key not in documents for documents in by_key) for key in sent),
        doubled=_surplus(events) + _surplus(log),
        differing=sum(_differs(sent[key], *(documents[key] for documents in by_key)) for key in _common(sent, by_key)),
        unexpected=len((by_key[0].keys() | by_key[1].keys()) - sent.keys()),
    )


def _key(document: Document) -> Key:
    return document["metadata"]["service_name"], document["payload"].get("n")


def _first_of_each(documents: Iterable[Document]) -> dict[Key, Document]:
    found: dict[Key, Document] = {}
    for document in documents:
        found.setdefault(_key(document), document)
    return found


def _surplus(documents: Iterable[Document]) -> int:
    return sum(count - 1 for count in Counter(map(_key, documents)).values())


def _common(sent: Mapping[Key, Any], by_key: Sequence[Mapping[Key, Document]]) -> list[Key]:
    return [key for key in sent if all(key in documents for documents in by_key)]


def _differs(sent: Mapping[str, Any], projected: Document, logged: Document) -> bool:
    same = all(projected[name] == logged[name] for name in ("_id", "digest", "timestamp", "payload", "metadata"))
    return not same or not _is_as_sent(sent, logged)


def _is_as_sent(sent: Mapping[str, Any], stored: Document) -> bool:
    given_id = stored["metadata"].get("source_event_id") or str(stored["_id"])
    found = (given_id, stored["event_type"], stored["aggregate_id"], stored["payload"])
    return found == (sent["id"], sent["type"], sent["subject"], sent["data"])
