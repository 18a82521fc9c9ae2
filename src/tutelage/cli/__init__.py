"""The command line: parse, call, print."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run `tutelage`; errors become text and an exit code."""
    from tutelage.errors import StoppedError
    from tutelage.signals import SIGNALS, StopRequested

    try:
        if sys.argv[1:2] in (["train"], ["demo"], ["sweep"]):
            SIGNALS.install(alone=True)  # Before the imports, which take seconds.
        _run()
    except StopRequested as signal:
        print(f"stopped on request ({signal}); nothing was begun", file=sys.stderr)
        sys.exit(StoppedError.exit_code)


def _run() -> None:
    from tutelage.cli.app import app
    from tutelage.cli.screen import printable
    from tutelage.errors import RecipeError, TutelageError

    try:
        app()
    except TutelageError as error:
        if os.environ.get("TUTELAGE_TRACEBACK"):
            raise
        # All processes of a machine read the same recipe; the first says what is wrong with it.
        if not isinstance(error, RecipeError) or os.environ.get("LOCAL_RANK", "0") == "0":
            print(printable(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except SystemExit as stop:
        if stop.code == 130:  # What typer makes of a KeyboardInterrupt inside a command.
            print("interrupted", file=sys.stderr)
        raise
    except BrokenPipeError:
        # The reader of our output left (as `head` does); there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
