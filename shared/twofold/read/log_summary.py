"""TODO module."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field


class TypeLine(BaseModel):
    """The events of one type in the log."""

    event_type: str
    count: Annotated[int | None, Field(description="null: too many for the time that there was; ask for a range")]
    first: Annotated[datetime, Field(description="the earliest time")]
    last: Annotated[datetime, Field(description="the latest time")]


class TypePage(BaseModel):
    """Some types, by name."""

    types: list[TypeLine]
    next: Annotated[str | None, Field(description="`after` of the next page; null: there is none")] = None


class LogHealth(BaseModel):
    """Whether the log answers, and what it holds."""

    status: Literal["ok"]
    events: Annotated[int, Field(description="about how many there are: the server's own estimate")]
    first: Annotated[datetime | None, Field(description="when the first came into the log, by the server's clock")]
    last: Annotated[datetime | None, Field(description="when the last came into the log, by the server's clock")]
