"""The delivery of Knative's source adapters, as lossy as theirs, for the stand-ins of PingSource and ApiServerSource.

An adapter sends one request at a time. It has five retries, from 50 ms on, for a fixed list of statuses and for
connection errors. After the last retry the event is lost.
"""

import time
from collections.abc import Mapping

import httpx

RETRIED = frozenset({404, 413, 425, 429, 502, 503, 504})
"""Knative's list for adapters (eventing v1.22); a 500 is final."""

RETRIES = 5
FIRST_DELAY_S = 0.05


def deliver(client: httpx.Client, sink: str, headers: Mapping[str, str], body: bytes = b"{}") -> str:
    """Post an event with the adapters' retries, and return the outcome in words."""
    outcome = "not tried"
    for attempt in range(1 + RETRIES):
        if attempt:
            time.sleep(FIRST_DELAY_S * 2 ** (attempt - 1))
        try:
            status = client.post(sink, headers=dict(headers), content=body).status_code
        except httpx.HTTPError as error:
            outcome = f"{type(error).__name__} after {attempt + 1} tries"
        else:
            outcome = f"{status} after {attempt + 1} tries"
            if status not in RETRIED:
                break
    return outcome
