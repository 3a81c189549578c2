"""The end of connections: a caller that keeps a connection learns of its end before it is closed."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import pytest
from multidict import CIMultiDict

from dev.stack.functions import FUNCTIONS, FunctionProcess
from tests.conftest import Spawner
from tests.helpers import Raw, View, an_event, bearer, decoded, delivered
from tests.pods import new_life
from twofold.cloudevents.encode import encode_http

LOAD_S = 0.7
COLLECTIONS = {"publish": "events", "store": "event_store"}
READERS = {"query": "/events?limit=1", "admin": "/events?limit=1", "audit": "/events?limit=1"}
"""The functions, and their senders."""


class Call(NamedTuple):
    """A request that a function gets under load."""

    about: Any
    """The event, or the uid of the pod. None if the function stores nothing."""
    headers: Mapping[str, str] | Raw
    body: bytes
    method: str = "POST"
    path: str = ""


def call_of(name: str) -> Call:
    """Return a new, valid request for the function."""
    if name in READERS:
        return Call(None, {}, b"", "GET", READERS[name])
    if name == "pod_events":
        sent = new_life("exit_1")[-1]
        return Call(sent.uid, *sent.request())
    event = an_event()
    return Call(event, *(encode_http(event) if name in ("publish", "relay") else delivered(event)))


def is_kept(flow: View, name: str, about: Sequence[Any]) -> bool:
    """Return True if the content of the request is stored."""
    if name in COLLECTIONS:
        return flow.held(COLLECTIONS[name], about) == {event.event_id for event in about}
    if name == "pod_events":
        found = flow.database.events.distinct("payload.pod_uid", {"payload.pod_uid": {"$in": about}})
        return set(found) == set(about)
    if name == "dead_letters":
        ids = [event.id.encode() for event in about]
        return bool(flow.database.dead_letters.count_documents({"headers.value": {"$in": ids}}) == len(ids))
    return True


async def keep_calling(function: FunctionProcess, leaving: asyncio.Event) -> list[tuple[Any, int]]:
    """Send requests on one connection until the function announces its end.

    No new connection is opened after the signal: the proxies of a cluster remove an ending endpoint from their lists.
    Returns the requests and the statuses of the answers. Raises `aiohttp.ClientError` for a request without an answer.
    """
    answers: list[tuple[Any, int]] = []
    closed = False
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), headers=bearer()) as session:
        while not (closed and leaving.is_set()):
            call = call_of(function.name)
            pairs = call.headers.items() if isinstance(call.headers, Mapping) else decoded(call.headers)
            url = function.url + call.path
            async with session.request(call.method, url, headers=CIMultiDict(pairs), data=call.body) as answer:
                answers.append((call.about, answer.status))
                closed = answer.headers.get("connection") == "close"
    return answers


@pytest.mark.slow
@pytest.mark.guarantee("G1", "G4", "G6")
@pytest.mark.parametrize("name", FUNCTIONS)
async def test_sigterm_under_load_resets_no_connection(flow: View, spawn: Spawner, name: str) -> None:
    """Every request on an open connection is answered, the last answer announces the end, and accepted events are
    stored.
    """
    function, leaving = spawn(name), asyncio.Event()
    calling = [asyncio.create_task(keep_calling(function, leaving)) for _ in range(16)]
    await asyncio.sleep(LOAD_S)
    leaving.set()
    await asyncio.to_thread(function.terminate)
    answers = [answer for answers in await asyncio.gather(*calling) for answer in answers]
    assert {status for _, status in answers} == {202 if name == "publish" else 200}
    assert is_kept(flow, name, [about for about, _ in answers])


@pytest.mark.guarantee("G1")
async def test_after_sigterm_an_answer_announces_the_end_of_its_connection(flow: View, spawn: Spawner) -> None:
    """A caller with a pause between two requests learns of the end too."""
    function = spawn("publish")
    ending: asyncio.Task[None] | None = None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), headers=bearer()) as session:
        closed = False
        while not closed:
            headers, body = encode_http(an_event())
            async with session.post(function.url, headers=headers, data=body) as answer:
                closed = answer.headers.get("connection") == "close"
            ending = ending or asyncio.create_task(asyncio.to_thread(function.terminate))
            await asyncio.sleep(0.05)
    assert ending is not None
    await ending
