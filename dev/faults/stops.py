"""Faults that kill (SIGKILL) or freeze (SIGSTOP) a process."""

import random
import time

from dev.faults.resends import TopicTail
from dev.faults.site import WITHIN_S, Inject, Site, await_effect


def kill(name: str) -> Inject:
    """Kill the process, and start it again a little later."""

    def inject(site: Site, rng: random.Random) -> None:
        site.process(name).kill()
        time.sleep(rng.uniform(*site.pace.down_s))
        site.process(name).start()

    return inject


def store_away_for_long(site: Site, rng: random.Random) -> None:
    """Kill `store` for longer than relay waits before its next check. An impatient operator runs relay meanwhile.

    The records of the topic are counted: an event must not be sent again behind its own record.
    """
    store = site.process("store")
    with TopicTail(site.stack.kafka, site.stack.topic) as tail:
        store.kill()
        until = time.monotonic() + site.pace.first_look_s + rng.uniform(2, 3) * site.pace.back_off_s
        while time.monotonic() < until:
            site.operator("relay", "run", "--json", RELAY_BACK_OFF_S="0.05", RELAY_FIRST_LOOK_S="0.1").wait(WITHIN_S)
        site.outages.append(tail.copies())
    store.start()


def kill_primary(site: Site, rng: random.Random) -> None:
    """Kill the primary of the replica set. Another member takes over, and the killed member comes back."""
    primary = site.mongo.wait_primary(WITHIN_S)
    site.mongo.kill(primary)
    time.sleep(rng.uniform(*site.pace.down_s))
    site.mongo.restart(primary)
    await_effect(site.mongo.all_joined, "the replica set is complete again")


def stop(name: str) -> Inject:
    """Freeze the process for a while: its connections stay open, and no request is answered."""

    def inject(site: Site, rng: random.Random) -> None:
        process = site.process(name)
        process.pause()
        try:
            time.sleep(rng.uniform(*site.pace.stop_s))
        finally:
            process.resume()

    return inject


def stop_primary(site: Site, rng: random.Random) -> None:
    """Freeze the primary of the replica set. After SIGCONT it may still believe that it is the primary."""
    primary = site.mongo.wait_primary(WITHIN_S)
    site.mongo.pause(primary)
    try:
        time.sleep(rng.uniform(*site.pace.stop_s))
    finally:
        site.mongo.resume(primary)
    await_effect(site.mongo.all_joined, "the replica set is complete again")
    site.mongo.wait_primary(WITHIN_S)


def stop_between_clock_and_insert(site: Site, rng: random.Random) -> None:
    """Freeze `publish` several times under many requests: some events have their time then, and no document yet."""
    publish = site.process("publish")
    longest = site.pace.stop_s[1]
    for seconds in (*(rng.uniform(0.02, 0.2) for _ in range(4)), rng.uniform(longest / 2, longest)):
        site.load.hurry(on=True)
        try:
            await_effect(lambda: site.load.producer.in_flight >= 8, "publish has many requests", every=0.002)
            publish.pause()
        finally:
            site.load.hurry(on=False)
        try:
            time.sleep(seconds)
        finally:
            publish.resume()
