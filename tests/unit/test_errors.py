"""The statuses of errors: a source stops retrying after a 4xx, and sends the event again after a 503."""

import ast

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
def test_kafka_source_retries_exactly_the_retriable_errors(kind: type[TwofoldError]) -> None:
    retried = kind.status >= 500 or kind.status in RETRIED_BY_KAFKA_SOURCE

    assert retried is kind.retriable
    assert issubclass(kind, Rejected) is not kind.retriable


def _used_names(code: str) -> set[str]:
    """Return the imported names, and the names of attributes: `errors.NotFound` needs no import of `NotFound`."""
    nodes = list(ast.walk(ast.parse(code)))
    imported = {name.name for node in nodes if isinstance(node, ast.ImportFrom | ast.Import) for name in node.names}
    return imported | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("sink", ["publish", "store", "dead_letters", "relay", "pod_events"])
def test_a_sink_uses_no_error_for_people(sink: str) -> None:
    """The packages behind a sink do not use these errors either. `web` is an exception: it answers every error."""
    code = [*(ROOT / "functions" / sink).glob("*.py")]
    code += [file for package in ("write", "cloudevents") for file in (ROOT / "shared/twofold" / package).glob("*.py")]
    for_people = {kind.__name__ for kind in _kinds() if issubclass(kind, Refused)}
    assert for_people
    assert len(code) > 10
    for file in code:
        assert for_people.isdisjoint(_used_names(file.read_text())), file


@pytest.mark.parametrize(
    "code",
    [
        "from twofold.errors import NotFound as Gone\n",
        "from twofold import errors\nerror = errors.NotFound('x')\n",
        "import twofold.errors\nerror = twofold.errors.NotFound('x')\n",
    ],
)
def test_every_way_to_use_an_error_is_found(code: str) -> None:
    assert "NotFound" in _used_names(code)


def test_every_source_retries_a_503() -> None:
    """ApiServerSource does not retry a 500."""
    assert Unavailable.status in RETRIED_BY_API_SERVER_SOURCE


@pytest.mark.parametrize("kind", ALL)
def test_titles_are_unique(kind: type[TwofoldError]) -> None:
    assert [other for other in _kinds() if other.title == kind.title] == [kind]


def test_an_answer_names_the_problem_and_its_place() -> None:
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
