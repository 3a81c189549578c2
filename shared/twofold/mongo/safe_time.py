"""The server's time, and the safe time: the moment below which no insert with a lower `seq` can still appear.

The problem: MongoDB gives an event its `seq` when it executes the insert, but readers see the event only after the
commit. So a reader can see `seq` 20 while the insert with `seq` 10 is still under way. A feed whose cursor stands at 20
would then skip 10 for ever, and a checkpoint at 20 would call the log complete without 10.

The safe time solves this without the clock of any function, in three steps:

1. `hello` gives the server's wall clock and the session's cluster time. A `seq` is never below either clock at the time
   of its insert. So every later insert gets a `seq` above the higher clock.
2. An insert with a `seq` must commit within its `maxTimeMS`, or fail. No insert has more than `LONGEST_INSERT`,
   whatever the settings of its program are. So an insert has ended when it began more than `LONGEST_INSERT` ago. The
   safe time is the higher clock, minus `LONGEST_INSERT`, minus one second for rounding.
3. The session is causally consistent, so its later majority reads come from a snapshot at that moment or after it. They
   see every insert with an earlier commit.

So a session that reads below its safe time sees each event there now, or the event never appears. One assumption is
left: an insert does not outlive its `maxTimeMS` by more than a second. A mongod that is frozen in the middle of an
insert, or whose clock is set forward then, could break it.

`read/feed.py` and `storage/checkpoints.py` stand on this.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from bson.timestamp import Timestamp

from twofold.mongo.client import CODEC, Database, Session, driver_errors

LONGEST_INSERT = timedelta(seconds=4)
"""The longest `maxTimeMS` of an insert, in every program that writes events. It is a constant and no setting: a reader
must know it of every writer. A change needs a stop of all writers and readers."""


async def server_time(database: Database) -> datetime:
    """Return the primary's clock (UTC). The functions share no other clock. Raises `Unavailable`."""
    with driver_errors():
        answer = await database.client.admin.command("hello", codec_options=CODEC)
    now: datetime = answer["localTime"]
    return now


@dataclass(frozen=True, slots=True)
class SafeTime:
    """The server's clock, and the safe time for the later reads of a session."""

    now: datetime
    safe_time: Timestamp


async def read_safe_time(session: Session, longest_insert: timedelta = LONGEST_INSERT) -> SafeTime:
    """Return the safe time for the reads of a causally consistent `session` that follow. Raises the driver's errors."""
    hello = await session.client.admin.command("hello", session=session, codec_options=CODEC)
    seconds = max(hello["operationTime"].time, int(hello["localTime"].timestamp()))
    margin_s = ceil(longest_insert.total_seconds()) + 1
    return SafeTime(hello["localTime"], Timestamp(max(seconds - margin_s, 0), 0))
