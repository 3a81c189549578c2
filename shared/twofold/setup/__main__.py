"""TODO module."""

import asyncio
import os
from argparse import ArgumentParser

from twofold.settings import SetupSettings
from twofold.setup.roles import passwords_in
from twofold.setup.run import set_up_patiently


def main() -> None:
    """Run the set-up with the environment's settings, and print what is there now."""
    parser = ArgumentParser(prog="python -m twofold.setup", description=main.__doc__)
    parser.add_argument(
        "--patience", type=float, default=0.0, metavar="SECONDS", help="how long to try while MongoDB or Kafka is away"
    )
    patience_s = parser.parse_args().patience
    for line in asyncio.run(set_up_patiently(SetupSettings(), passwords_in(os.environ), patience_s)):
        print(line)  # noqa: T201 - this is the command's output


if __name__ == "__main__":
    main()
