"""Each error knows its status: the contract with Knative, where 4xx ends an event and 503 brings it again."""

import re

import pytest

from dev.paths import ROOT
from twofold import errors
from twofold.errors import Invalid, Malformed, Problem, Refused, Rejected, TwofoldError, Unavailable
from twofold.web.problems import problem_details

pytestmark = pytest.mark.guarantee("R10")

RETRIED_BY_KAFKA_SOURCE = {404, 408, 409, 429}
RETRIED_BY_API_SERVER_SOURCE = {404, 413, 425, 429, 502, 503, 504}


def _kinds() -> list[type[TwofoldError]]:
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TwofoldError))
    return [kind for kind in kinds if hasattr(kind, "status")]


TO_SINKS = [pytest.param(kind, id=kind.__name__) for kind in _kinds() if not issubclass(kind, Refused)]
ALL = [pytest.param(kind, id=kind.__name__) for kind in _kinds()]


@pytest.mark.parametrize("kind", TO_SINKS)
def test_what_can_not_succeed_later_is_not_retried_by_kafka_source_and_all_else_is(kind: type[TwofoldError]) -> None:
    retried = kind.status >= 500 or kind.status in RETRIED_BY_KAFKA_SOURCE

    assert retried is kind.retriable
    assert issubclass(kind, Rejected) is not kind.retriable


@pytest.mark.parametrize("sink", ["publish", "store", "dead_letters", "relay", "pod_events"])
def test_what_only_people_are_told_is_named_by_no_sink(sink: str) -> None:
    """Nor by anything of Twofold's that it works with, but for `http`, which knows every error."""
    code = [*(ROOT / "functions" / sink).glob("*.py")]
    code += [ROOT / "shared/twofold" / f"{name}.py" for name in ("publishing", "storing", "relaying", "cloudevents")]
    for_people = {kind.__name__ for kind in _kinds() if issubclass(kind, Refused)}
    assert for_people
    for file in code:
        assert for_people.isdisjoint(re.findall(r"\w+", file.read_text())), file


def test_trouble_that_passes_is_retried_by_every_source() -> None:
    """ApiServerSource takes a 500 for final, and a 503 not."""
    assert Unavailable.status in RETRIED_BY_API_SERVER_SOURCE


@pytest.mark.parametrize("kind", ALL)
def test_a_kind_is_known_by_its_title(kind: type[TwofoldError]) -> None:
    assert [other for other in _kinds() if other.title == kind.title] == [kind]


def test_an_answer_says_what_and_where() -> None:
    details = problem_details(Invalid("must be a string", "data.items[3].name"))

    assert details == {
        "type": "urn:twofold:problem:invalid",
        "title": "invalid",
        "status": 422,
        "detail": "must be a string",
        "errors": [{"where": "data.items[3].name", "what": "must be a string"}],
    }


def test_an_answer_lists_every_problem() -> None:
    problems = (Problem("id", "is missing"), Problem("source", "is missing"))
    details = problem_details(Malformed("a CloudEvent needs id, source", problems=problems))

    assert details["errors"] == [{"where": "id", "what": "is missing"}, {"where": "source", "what": "is missing"}]
