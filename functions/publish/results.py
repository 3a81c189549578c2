"""The status and the results of a batch, in an answer of at most `MAX_ANSWER_BYTES`."""

from collections.abc import Mapping, Sequence

from pydantic_core import to_json

from twofold.errors import TwofoldError
from twofold.web.problems import problem_details
from twofold.write.batch import Published

MAX_ANSWER_BYTES = 1024 * 1024
"""The largest answer. A batch can have 1,000 events with an error of some kilobytes for each event."""

_MARGIN = 64
_CUT = "..."

Result = dict[str, object]


def result_of(published: Published) -> Result:
    """Return the result of an accepted event."""
    return {"id": published.given_id, "event_id": published.event_id, "result": published.status}


def batch_status(outcomes: Sequence[Published | TwofoldError]) -> int:
    """Return the status of the answer to a batch.

    - 202: every event was accepted, or the batch is empty.
    - 207: a part of the events was accepted.
    - 422: no event was accepted, and every refusal is final.
    - 503: no event was accepted, and at least one event is to be sent again.
    """
    errors = [outcome for outcome in outcomes if isinstance(outcome, TwofoldError)]
    if len(errors) < len(outcomes):
        return 207 if errors else 202
    if any(error.retriable for error in errors):
        return 503
    return 422 if errors else 202


def batch_results(
    given_ids: Sequence[str | None], outcomes: Sequence[Published | TwofoldError]
) -> dict[str, list[Result]]:
    """Return the results in the order of the batch. An error has the `id` of its event, if the event has an `id`.

    If they need more than `MAX_ANSWER_BYTES`, each long result loses its `errors`, and the ends of `detail` and `id`.
    """
    results = [_batch_result(given_id, outcome) for given_id, outcome in zip(given_ids, outcomes, strict=True)]
    if len(to_json(results)) + _MARGIN > MAX_ANSWER_BYTES:
        share = (MAX_ANSWER_BYTES - _MARGIN) // len(results) - 1
        results = [_shortened(result, share) for result in results]
    return {"results": results}


def _batch_result(given_id: str | None, outcome: Published | TwofoldError) -> Result:
    if not isinstance(outcome, TwofoldError):
        return {"status": 202, **result_of(outcome)}
    return problem_details(outcome) if given_id is None else {"id": given_id, **problem_details(outcome)}


def _shortened(result: Mapping[str, object], most: int) -> Result:
    """Return the result in at most `most` bytes of JSON, if its fixed members take no more."""
    if len(to_json(result)) <= most:
        return dict(result)
    short = {name: value for name, value in result.items() if name != "errors"}
    texts = {name: str(short[name]) for name in ("id", "detail") if name in short}
    room = most - len(to_json(short | dict.fromkeys(texts, "")))
    shortest_first = sorted(texts, key=lambda name: _size(texts[name]))
    for number, name in enumerate(shortest_first):  # a short text leaves its room to the other text
        short[name] = _cut(texts[name], room // (len(texts) - number))
        room -= _size(str(short[name]))
    return short


def _size(text: str) -> int:
    """Return the bytes of `text` in JSON, without the quotes."""
    return len(to_json(text)) - 2


def _cut(text: str, most: int) -> str:
    """Return the text, or its beginning and `...`: at most `most` bytes in JSON."""
    return text if _size(text) <= most else _beginning(text, most - len(_CUT)) + _CUT


def _beginning(text: str, most: int) -> str:
    """Return the longest beginning of `text` with at most `most` bytes in JSON."""
    kept = text[: max(most, 0)]
    while kept and (over := _size(kept) - most) > 0:
        kept = kept[: -max(over // 6, 1)]  # a character takes up to six bytes in JSON
    return kept
