"""`tutelage convert`: pickled weights as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.screen import Terminal


def convert(
    folder: Annotated[Path, typer.Argument(help="A model folder with .bin, .pt or .pth files.")],
    output: Annotated[Path, typer.Argument(help="The folder to write.")],
    allow_network: Annotated[
        bool,
        typer.Option(
            "--allow-network",
            help="Open the pickles even where the system cannot cut their process off from the network. "
            "A malicious file that gets round torch's own check could then send out whatever you may read.",
        ),
    ] = False,
) -> None:
    """Write a folder's pickled weights as safetensors, in a process without network."""
    from tutelage.models.pickled import convert

    with Terminal().stage("converting", None):
        done = convert(folder, output, isolated=not allow_network)
    where = "in a process without network" if done.isolated else "in a process that could reach the network"
    print(f"wrote   {done.folder}: {done.tensors:,} tensors, {done.bytes / 1e6:,.1f} MB, {where}")
