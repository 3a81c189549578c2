"""The command `python -m twofold.setup`."""

import asyncio
import os
from argparse import ArgumentParser

from twofold.settings import SetupSettings
from twofold.setup.roles import passwords_in
from twofold.setup.run import set_up_patiently


def main() -> None:
    """Create collections, indexes, roles, users and the topic, and print a line for every object."""
    parser = ArgumentParser(prog="python -m twofold.setup", description=main.__doc__)
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="keep trying for this long while MongoDB or Kafka is unavailable",
    )
    patience_s = parser.parse_args().patience
    for line in asyncio.run(set_up_patiently(SetupSettings(), passwords_in(os.environ), patience_s)):
        print(line)  # noqa: T201 - this is the command's output


if __name__ == "__main__":
    main()
