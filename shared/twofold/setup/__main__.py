"""The command `python -m twofold.setup`."""

import asyncio
import os
import sys
from argparse import ArgumentParser
from typing import NoReturn

from twofold.errors import InvalidSettings, MissingExtra, Unavailable
from twofold.settings import SetupSettings
from twofold.settings.environment import read_settings
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
    try:
        lines = asyncio.run(set_up_patiently(read_settings(SetupSettings), passwords_in(os.environ), patience_s))
    except InvalidSettings as error:
        _end(str(error), 2)
    except Unavailable as error:
        _end(error.diagnosis or error.detail, 1)
    except MissingExtra as error:
        _end(str(error), 1)
    for line in lines:
        print(line)  # noqa: T201 - this is the command's output


def _end(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201 - this is the command's output
    sys.exit(status)


if __name__ == "__main__":
    main()
