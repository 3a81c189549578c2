"""The results of a batch, in an answer of at most `MAX_ANSWER_BYTES`."""

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


def batch_results(outcomes: Sequence[Published | TwofoldError]) -> dict[str, list[Result]]:
    """Return the results in the order of the batch.

    If they need more than `MAX_ANSWER_BYTES`, each long result loses its `errors`, and the end of its `detail` or `id`.
    """
    results: list[Result] = [
        problem_details(outcome) if isinstance(outcome, TwofoldError) else {"status": 202, **result_of(outcome)}
        for outcome in outcomes
    ]
    if len(to_json(results)) + _MARGIN > MAX_ANSWER_BYTES:
        share = (MAX_ANSWER_BYTES - _MARGIN) // len(results) - 1
        results = [_shortened(result, share) for result in results]
    return {"results": results}


def _shortened(result: Mapping[str, object], most: int) -> Result:
    """Return the result in at most `most` bytes of JSON, if its fixed members take no more."""
    if len(to_json(result)) <= most:
        return dict(result)
    short = {name: value for name, value in result.items() if name != "errors"}
    name = "detail" if "detail" in short else "id"
    text = str(short[name])
    room = most - len(to_json(short | {name: _CUT}))
    short[name] = _beginning(text, room) + _CUT if len(to_json(text)) - 2 > room + len(_CUT) else text
    return short


def _beginning(text: str, most: int) -> str:
    """Return the longest beginning of `text` with at most `most` bytes in JSON."""
    kept = text[: max(most, 0)]
    while kept and (over := len(to_json(kept)) - 2 - most) > 0:
        kept = kept[: -max(over // 6, 1)]  # a character takes up to six bytes in JSON
    return kept
