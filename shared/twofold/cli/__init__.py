"""`twofold`, the operator's command line. It is installed with the extra `cli`."""

import sys


def main() -> None:
    """Run the command line. Without the packages of the extra, print a line and end with exit status 1."""
    try:
        from twofold.cli.app import run  # noqa: PLC0415 - the import needs the packages of the extra
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("rich", "typer"):
            raise
        sys.stderr.write(f"twofold needs the package {package}: run pip install 'twofold[cli]'\n")
        sys.exit(1)
    run()
