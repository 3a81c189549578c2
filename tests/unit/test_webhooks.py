"""The handshake of webhooks: which sender may register `publish`, and what the answer says."""

import pytest
from pydantic import ValidationError
from starlette.requests import Request

from functions.publish.webhooks import answer_options
from twofold.errors import Forbidden
from twofold.settings import MAX_HOST_CHARS, Settings
from twofold.web.problems import problem_details

pytestmark = pytest.mark.guarantee("R4")

GRID = "eventgrid.azure.net"
LONGEST = ".".join(["a" * 63] * 3 + ["a" * 61])


def asking(origin: str | None, **more: str) -> Request:
    headers = {"webhook-request-origin": origin} | {name.replace("_", "-"): value for name, value in more.items()}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items() if value is not None]
    return Request({"type": "http", "method": "OPTIONS", "path": "/", "headers": raw})


@pytest.mark.parametrize("allowed", [(GRID,), ("a.example", GRID), ("*",)])
@pytest.mark.parametrize("origin", [GRID, "EventGrid.Azure.net"])
def test_an_allowed_origin_gets_the_permission(allowed: tuple[str, ...], origin: str) -> None:
    """A DNS name is compared without the case of its letters."""
    response = answer_options(asking(origin), allowed)
    assert response.status_code == 200
    assert response.headers["webhook-allowed-origin"] == origin
    assert response.headers["webhook-allowed-rate"] == "*"
    assert response.headers["allow"] == "POST, OPTIONS"
    assert response.body == b""


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        *(("120", "120"), ("1", "1"), ("999999999", "999999999"), ("*", "*"), ("0", "*"), ("-1", "*"), ("1.5", "*")),
        *(("", "*"), ("012", "*"), ("9" * 10, "*"), ("x", "*"), ("\xb2", "*")),
    ],
)
def test_a_rate_is_a_positive_number_or_every_rate(asked: str, granted: str) -> None:
    response = answer_options(asking(GRID, webhook_request_rate=asked), ("*",))
    assert response.headers["webhook-allowed-rate"] == granted


@pytest.mark.parametrize(
    ("origin", "allowed"), [(GRID, ()), (GRID, ("azure.net",)), ("x." + GRID, (GRID,)), ("azure.net", (GRID,))]
)
def test_another_origin_is_refused_with_the_name_of_the_setting(origin: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(Forbidden, match="WEBHOOK_ORIGINS") as caught:
        answer_options(asking(origin), allowed)
    assert origin not in str(problem_details(caught.value))


@pytest.mark.parametrize(
    "origin",
    [
        *("", "*", "a b", "a,b", "https://a.example", "a.example:80", ".a", "a.", "a..b", "-a", "a-", "a_b"),
        *("\xe9.example", "a" * 64, LONGEST + "a", "<script>", "a.example\n"),
    ],
)
def test_an_origin_that_is_no_dns_name_is_never_repeated(origin: str) -> None:
    with pytest.raises(Forbidden, match="not a DNS name") as caught:
        answer_options(asking(origin), ("*", origin))
    assert caught.value.problems[0].where == "webhook-request-origin"
    assert len(origin) < 3 or origin not in str(problem_details(caught.value))


def test_an_origin_of_the_largest_length_is_allowed() -> None:
    assert len(LONGEST) == MAX_HOST_CHARS
    assert answer_options(asking(LONGEST), ("*",)).status_code == 200


def test_options_without_an_origin_name_the_methods() -> None:
    response = answer_options(asking(None, webhook_request_rate="1"), ("*",))
    assert (response.status_code, response.headers["allow"]) == (204, "POST, OPTIONS")
    assert "webhook-allowed-rate" not in response.headers


def test_the_callback_has_no_effect() -> None:
    """A function that calls addresses from requests would reach servers inside the cluster for its callers."""
    with_callback = answer_options(asking(GRID, webhook_request_callback="http://10.0.0.1/"), ("*",))
    assert with_callback.raw_headers == answer_options(asking(GRID), ("*",)).raw_headers


def origins(value: str) -> tuple[str, ...]:
    return Settings.model_validate({"mongodb_uri": "mongodb://x/", "webhook_origins": value}).webhook_origins


def test_the_setting_lists_names_between_commas() -> None:
    assert Settings.model_validate({"mongodb_uri": "mongodb://x/"}).webhook_origins == ()
    assert origins("") == origins(" , ") == ()
    assert origins("EventGrid.azure.net, a.example,*") == (GRID, "a.example", "*")


@pytest.mark.parametrize("value", ["https://a.example", "a.example b.example", "*.example", LONGEST + "a"])
def test_a_name_that_can_match_no_origin_is_rejected_at_the_start(value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        origins(value)
    assert caught.value.errors()[0]["loc"][0] == "webhook_origins"
