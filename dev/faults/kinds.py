"""The list of the kinds of faults, with the parts of the stack that a kind needs for itself.

Two faults with a common part never overlap. Faults without a common part may overlap.
"""

from dataclasses import dataclass

from dev.faults.log_damage import log_part_removed, log_restored
from dev.faults.log_loss import broker_loses_log, kill_relay_after_sending
from dev.faults.other_processes import events_at_bounds, other_settings
from dev.faults.repetitions import delivered_twice, redriven_twice_at_once, shifted_clock, source_gives_up
from dev.faults.site import Inject
from dev.faults.stops import kill, kill_primary, stop, stop_between_clock_and_insert, stop_primary, store_away_for_long

HOUR_S = 3600


@dataclass(frozen=True)
class Kind:
    """A kind of fault, the parts that it needs, and the only broker that allows it, if not every broker does."""

    inject: Inject
    parts: frozenset[str]
    broker: str | None = None


def _kind(inject: Inject, *parts: str, broker: str | None = None) -> Kind:
    return Kind(inject, frozenset(parts), broker)


KINDS = {
    "kill_publish": _kind(kill("publish"), "publish"),
    "kill_store": _kind(kill("store"), "store"),
    "kill_relay": _kind(kill("relay"), "relay"),
    "kill_dead_letters": _kind(kill("dead_letters"), "dead_letters"),
    "kill_source": _kind(kill("source"), "source"),
    "kill_primary": _kind(kill_primary, "mongo"),
    "kill_broker": _kind(kill("broker"), "broker", broker="apache"),
    "broker_loses_log": _kind(broker_loses_log, "broker", "source"),
    "kill_relay_after_sending": _kind(
        kill_relay_after_sending, "publish", "broker", "source", "second_source", "relay", "mongo"
    ),
    "stop_publish": _kind(stop("publish"), "publish"),
    "stop_store": _kind(stop("store"), "store"),
    "stop_relay": _kind(stop("relay"), "relay"),
    "stop_dead_letters": _kind(stop("dead_letters"), "dead_letters"),
    "stop_source": _kind(stop("source"), "source"),
    "stop_primary": _kind(stop_primary, "mongo"),
    "stop_broker": _kind(stop("broker"), "broker"),
    "stop_between_clock_and_insert": _kind(stop_between_clock_and_insert, "publish"),
    "clock_ahead": _kind(shifted_clock(HOUR_S), "clock"),
    "clock_behind": _kind(shifted_clock(-HOUR_S), "clock"),
    "store_away_for_long": _kind(store_away_for_long, "store", "broker"),
    "delivered_twice": _kind(delivered_twice, "second_source"),
    "source_gives_up": _kind(source_gives_up, "source", "store", "dead_letters", "mongo", "broker"),
    "redriven_twice_at_once": _kind(redriven_twice_at_once, "redrive", "broker", "mongo"),
    "log_part_removed": _kind(log_part_removed, "relay", "mongo"),
    "log_restored": _kind(log_restored, "relay", "mongo"),
    "other_settings": _kind(other_settings, "publish", "clock", "mongo"),
    "events_at_bounds": _kind(events_at_bounds, "bounds"),
}

SURE = ("log_part_removed", "log_restored", "other_settings", "events_at_bounds")
"""Every run has some of these kinds: no other kind finds the same errors."""


def kinds_for(broker: str) -> dict[str, Kind]:
    """Return the possible kinds for a broker."""
    return {name: kind for name, kind in KINDS.items() if kind.broker in (None, broker)}
