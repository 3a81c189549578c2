"""Operations on one event: by its `event_id`, or by its `source` and `id`."""

from dataclasses import replace
from typing import Annotated, ClassVar, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from twofold.event.identity import event_id_of
from twofold.query.parameters import AttributeValue, EventId
from twofold.web.api import Example, Operation

Service = TypeVar("Service")


class EventPath(BaseModel):
    """The event in the path."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    place: ClassVar[str] = "event_id"
    """The place of the error for an unknown event."""

    event_id: EventId


class EventName(BaseModel):
    """The event with this `source` and `id`: the identity of CloudEvents."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    place: ClassVar[str] = "id"

    source: Annotated[AttributeValue, Field(description="CloudEvents' `source`")]
    id: Annotated[AttributeValue, Field(description="CloudEvents' `id`")]

    @property
    def event_id(self) -> UUID:
        """The identity in Twofold."""
        return event_id_of(self.source, self.id)


def by_name(operation: Operation[Service], name: str) -> Operation[Service]:
    """Return the operation `name` for an event by its `source` and `id`. The permission is that of `operation`."""
    return replace(
        operation,
        name=name,
        path="/event",
        parameters=EventName,
        summary="The same, for the event with this `source` and `id`.",
        examples=(Example("/event?source=%2Fshop&id=$GIVEN_ID"),),
    )
