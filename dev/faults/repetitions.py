"""Faults of correct parts: a second source, an impatient source, a wrong clock, two operators."""

import random
import secrets
import subprocess
import time
from contextlib import suppress

from dev.faults.site import WITHIN_S, Inject, Site, await_effect
from dev.paths import ROOT
from dev.process.child import free_port
from dev.stack.functions import FunctionProcess

SHIFTED_PUBLISH = ROOT / "dev" / "shifted_clock" / "main.py"
REDRIVEN_AT_ONCE = "200"


def delivered_twice(site: Site, rng: random.Random) -> None:
    """Deliver all records of the topic once more, by a second consumer group, while the first group goes on."""
    number = secrets.token_hex(4)
    second = site.stack.new_source(name=f"kafka_source-{number}", group=f"{site.stack.consumer_group}-{number}")
    second.start()
    time.sleep(rng.uniform(*site.pace.stop_s))
    second.kill()


def source_gives_up(site: Site, rng: random.Random) -> None:
    """Kill `store` under a source with few retries: the source dead-letters its records and commits them."""
    undelivered = {"reason": "undelivered"}
    before = site.database.dead_letters.count_documents(undelivered)
    impatient = site.stack.new_source("--retry", "2", "--backoff-delay", "0.05", name="kafka_source-impatient")
    site.source.terminate(5.0)
    site.process("store").kill()
    impatient.start()
    await_effect(
        lambda: site.database.dead_letters.count_documents(undelivered) > before, "the source dead-letters a record"
    )
    time.sleep(rng.uniform(*site.pace.down_s))
    site.process("store").start()
    impatient.terminate(5.0)
    site.source.start()


def shifted_clock(seconds: int) -> Inject:
    """Send some events through a `publish` whose clock is wrong, and kill it at the end."""

    def inject(site: Site, rng: random.Random) -> None:
        shift = {"FUNCTION_SOURCE": str(SHIFTED_PUBLISH), "CLOCK_SHIFT_S": str(seconds)}
        environment = site.stack.function_environment("publish") | shift
        shifted = FunctionProcess("publish", free_port(), environment, logs=site.stack.logs / f"shifted{seconds:+}")
        shifted.start()
        usual = site.load.urls
        site.load.urls = (*usual, shifted.url)
        try:
            time.sleep(rng.uniform(*site.pace.stop_s))
        finally:
            site.load.urls = usual
            shifted.kill()

    return inject


def redriven_twice_at_once(site: Site, _: random.Random) -> None:
    """Redrive the same dead letters by two operators at the same time."""
    dead = {"state": "dead"}
    await_effect(lambda: site.database.dead_letters.count_documents(dead) > 9, "there are ten dead letters")
    for reason in sorted(site.database.dead_letters.distinct("reason", dead)):
        arguments = ("dead-letters", "redrive", "--by", "faults", "--reason", reason, "--limit", REDRIVEN_AT_ONCE)
        operators = [site.operator(*arguments, "--json") for _ in range(2)]
        for operator in operators:
            with suppress(subprocess.TimeoutExpired):
                operator.wait(WITHIN_S)
            operator.kill()
            operator.wait()
