"""The reason of a delivery that its source stopped retrying."""

import base64

import pytest

from twofold.storage.failed_delivery import undelivered_reason

pytestmark = pytest.mark.guarantee("G4")

SINK = (b"ce-knativeerrordest", b"http://store.local/")


def test_the_reason_has_the_answer_of_the_sink() -> None:
    headers = [SINK, (b"ce-knativeerrorcode", b"503"), (b"ce-knativeerrordata", base64.b64encode(b"{}"))]
    assert undelivered_reason(headers).detail == "http://store.local/ answered 503: {}"


def test_the_reason_says_that_the_sink_gave_no_answer() -> None:
    assert undelivered_reason([SINK]).detail == "http://store.local/ gave no answer"
