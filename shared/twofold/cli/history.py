"""The command `twofold history`."""

from typing import Annotated

import typer

from twofold.cli.options import (
    AggregateOption,
    CorrelationOption,
    FromOption,
    JsonOption,
    OrderOption,
    ToOption,
    TypesOption,
    UserOption,
    event_filter,
)
from twofold.cli.output import event_columns, run_with, show, warn, warn_altered, warn_unreadable
from twofold.query.limits import MAX_LIMIT
from twofold.read.pages import EventReader


def history(
    *,
    types: TypesOption = None,
    aggregate: AggregateOption = None,
    correlation: CorrelationOption = None,
    user: UserOption = None,
    since: FromOption = None,
    until: ToOption = None,
    order: OrderOption = "oldest",
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="The largest number of events.")] = 100,
    cursor: Annotated[
        str | None,
        typer.Option(help="Continue an earlier run with the same options: the cursor that it printed."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show events of the log: of an aggregate, a correlation, a user, a type or a range of time."""
    asked = {"type": types, "aggregate": aggregate, "correlation": correlation, "user": user}
    wanted = event_filter(**asked, **{"from": since, "to": until, "order": order, "limit": limit, "cursor": cursor})
    page = run_with(lambda database, settings: EventReader(database["event_store"], settings).page(wanted))
    if as_json:
        show(page, as_json=True)
        return
    show([event_columns(event) for event in page.events], as_json=False, title="no events")
    warn_altered(page.events)
    for event_id in page.unreadable:
        warn_unreadable(str(event_id))
    if page.next:
        warn(f"there are more than these {len(page.events)} events: continue with --cursor {page.next}")
