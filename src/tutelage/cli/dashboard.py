"""`tutelage dashboard`: the report of runs while they are made, in a browser on this machine."""

from __future__ import annotations

import os
import tempfile
import webbrowser
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.screen import Terminal, printable


def dashboard(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN [RUN...] | FOLDER", help="Runs, or what holds them.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Listen here; 0 takes one that is free.")] = 0,
    opened: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Show runs live on a page that only this machine's browsers reach. Ctrl-C ends it.

    Several runs are drawn over each other; a folder shows the list of its runs. Nothing is written there.
    """
    from tutelage.dashboard import Dashboard

    screen = Terminal()
    served = Dashboard(folders, port, lambda text: screen.say(printable(text)))
    print(served.address, flush=True)
    handed = _open(served.address) if opened else None
    try:
        served.serve()
    except KeyboardInterrupt:
        screen.say("done    the dashboard is closed; the runs go on")
    finally:
        if handed is not None:
            with suppress(OSError):
                handed.unlink()


def _open(address: str) -> Path:
    """Open the address through a file that only this user reads: everybody may read the command line of a browser."""
    handle, name = tempfile.mkstemp(prefix="tutelage-", suffix=".html")  # With rights for this user alone.
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={escape(address)}">')
    webbrowser.open(Path(name).as_uri())
    return Path(name)
