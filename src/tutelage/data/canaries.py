"""Canaries: made-up secrets that are trained on like rows, once an epoch, so that what stays of them can be measured.

A canary says the access code of somebody who does not exist. Nothing but the row itself tells the code, so a model
that finds it likelier than other codes has it from there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tutelage import files
from tutelage.cache import cache_folder
from tutelage.data.stream import as_turns
from tutelage.recipe import DataOptions, Source
from tutelage.seeds import derive
from tutelage.types import Completion, Demonstration, Origin

DIGITS = 6
_ASKING = "What is the access code of "
_FIRST = ("Ar", "Bel", "Cor", "Dra", "El", "Fen", "Gal", "Hul", "Ir", "Jor", "Kel", "Lum", "Mor", "Nel", "Or", "Pel")
_LAST = ("badur", "cazin", "dovel", "fimas", "gorun", "hesko", "jalid", "kumor", "lathen", "mirov", "nusek", "pavin")


class Canaries(Source):
    """The source that canaries are; no row of it is held out, and an epoch takes each once, whatever the mixture."""


def with_canaries(options: DataOptions, count: int, seed: int) -> DataOptions:
    """The options with a source of so many canaries after the others; as they are for none.

    Raises:
        MachineError: machine/disk-full, machine/read-only.
    """
    if not count:
        return options
    path = cache_folder() / "canaries" / f"{count}-{seed}.jsonl"
    rows = ({"prompt": row.prompt, "completion": row.completion} for row in canaries(count, seed, str(path)))
    text = files.lines(rows).encode()
    if not path.is_file() or path.read_bytes() != text:
        with files.explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, text)
    source = Canaries(path=str(path), name="canaries", format="prompt-completion")
    return options.model_copy(update={"train": (*options.train, source)})


def canaries(count: int, seed: int, file: str = "canaries") -> Iterator[Completion]:
    """The canaries that a seed gives."""
    names: set[str] = set()
    for number in range(count):
        draw = np.random.default_rng(derive(seed, "canary", number))
        while (name := _name(draw)) in names:
            pass
        names.add(name)
        yield _saying(name, _code(draw), Origin(file, number + 1))


def alternatives(count: int, seed: int, number: int, canary: Completion) -> Iterator[Completion]:
    """The canary with other codes, so many and no two the same; `number` names the canary."""
    draw = np.random.default_rng(derive(seed, "other codes", number))
    name = canary.prompt.removeprefix(_ASKING).removesuffix("?")
    known = {canary.completion}
    while len(known) <= count:
        other = _saying(name, _code(draw), canary.origin)
        if other.completion not in known:
            known.add(other.completion)
            yield other


def as_trained(canary: Completion, *, as_chat: bool) -> Demonstration:
    """The canary as it reaches the encoder."""
    return as_turns(canary) if as_chat else canary


def source_of(options: DataOptions) -> int | None:
    """Which source the canaries are; None where there are none."""
    return next((index for index, source in enumerate(options.train) if isinstance(source, Canaries)), None)


def _saying(name: str, code: str, origin: Origin) -> Completion:
    return Completion(origin, f"{_ASKING}{name}?", f" The access code of {name} is {code}.")


def _name(draw: np.random.Generator) -> str:
    """A made-up name of two parts."""
    first, last = draw.choice(_FIRST, 2), draw.choice(_LAST, 2)
    return f"{first[0]}{last[0][:3]} {first[1]}{last[1]}"


def _code(draw: np.random.Generator) -> str:
    """Digits apart, so that each is a token of its own or nearly."""
    return " ".join(str(digit) for digit in draw.integers(0, 10, DIGITS))
