"""The heads of the log that checkpoints keep."""

from bson.timestamp import Timestamp

from twofold.mongo.client import Document
from twofold.storage.log_state import BEFORE_EVERY_SEQ, MAX_HEADS, LogState


def state(heads: list[Document], seq: int) -> LogState:
    """Return the state of a log whose newest document has this `seq`."""
    head = {"_id": seq, "seq": Timestamp(seq, 1)}
    return LogState(0, head, heads, [], [], BEFORE_EVERY_SEQ, regressed=False)


def test_the_heads_of_a_year_are_bounded_and_cover_all_of_it() -> None:
    """The oldest and the newest head stay, and every span of time between them has heads."""
    heads: list[Document] = []
    now = 0
    for minute in range(20_000):
        now += 60 if minute < 10_000 else 3600
        heads = [*state(heads, now).entry()["heads"]]
        assert len(heads) <= MAX_HEADS
    kept = [head["_id"] for head in heads]
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (60, now)
    ages = [now - seconds for seconds in kept]
    for hours in (1, 6, 24, 7 * 24, 30 * 24, 180 * 24):
        assert any(hours * 3600 <= age <= 3 * hours * 3600 for age in ages), hours


def test_a_known_head_is_kept_once() -> None:
    once = [*state([], 7).entry()["heads"]]
    assert [*state(once, 7).entry()["heads"]] == once


def test_a_missing_head_is_never_thinned_out() -> None:
    """`reconcile` must not begin after it."""
    heads = [{"_id": second, "seq": Timestamp(second, 1)} for second in range(10)]
    missing = heads[3:6]
    first_loss: set[Timestamp | None] = set()
    for second in range(10, 1000):
        head = {"_id": second, "seq": Timestamp(second, 1)}
        regressed = LogState(0, head, heads, missing, [], BEFORE_EVERY_SEQ, regressed=True)
        heads = [*regressed.entry()["heads"]]
        first_loss.add(regressed.missing_from)
    assert [head for head in heads if head in missing] == missing
    assert len(heads) == MAX_HEADS + len(missing)
    assert first_loss == {Timestamp(3, 1)}
