"""F5: the newest checkpoint is damaged on the disk, in every way that we could think of, and the run goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from harness import Job, count, job, read_lines, together
from outcomes import outcome

from tutelage.checkpoints import Checkpoints
from tutelage.checkpoints.manifest import _digest

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
AFTER, NEWEST, BEFORE = 52, "step-00000050", "step-00000048"
Damage = tuple[str, str, Callable[[Path], None]]
"""What is done, the file that must be named, and the doing; it is given the checkpoint's folder."""


def damages(chance: random.Random, flips: int) -> Iterator[Damage]:
    """Every kind, and so many single bits."""
    for name in FILES:
        for size in (0, 1, 8, 0.5, -1):
            yield f"cut to {size}", name, partial(cut, name=name, size=size)
        yield "missing", name, lambda folder, name=name: (folder / name).unlink()
        said = name.removesuffix(".json") if name == "manifest.json" else name  # It is read, and is of another step.
        yield "of another step", said, lambda folder, name=name: _copy(folder.parent / BEFORE / name, folder / name)
        yield "zeros", name, lambda folder, name=name: _write(folder / name, bytes(_size(folder, name)))
        yield "a byte more", name, lambda folder, name=name: _write(folder / name, _read(folder / name) + b"\0")
        yield "a link", name, partial(linked, name=name)
        yield "a folder", name, lambda folder, name=name: ((folder / name).unlink(), (folder / name).mkdir())[-1]
    yield "foreign file", "note.txt", lambda folder: _write(folder / "note.txt", b"x")
    yield "hidden file", ".hidden", lambda folder: _write(folder / ".hidden", b"")
    yield "foreign folder", "more", lambda folder: (folder / "more").mkdir()
    yield "foreign link", "more", lambda folder: (folder / "more").symlink_to("/")
    for field in ("format", "step", "run", "files", "facts", "sha256"):
        yield f"manifest without {field}", "manifest.json", partial(edited, field=field, value=None)
        for value in (7, -1, "x", [], {}, True, 1e300):
            yield f"manifest with {field} = {value!r}", "manifest.json", partial(edited, field=field, value=value)
    for field in ("format", "step", "run", "files"):
        for value in (7, "x", [], {"../model.safetensors": {"bytes": 1, "sha256": "0"}}, float("inf")):
            yield (
                f"manifest with {field} = {value!r}, sealed again",
                "",
                partial(edited, field=field, value=value, seal=True),
            )
    for text in (b"", b"[]", b"null", b"7", b"{}", b'"x"', b"[" * 100_000, b"\xff\xfe", b"{" * 9, b'{"a":' * 50_000):
        yield f"manifest is {text[:6]!r}", "manifest.json", lambda folder, text=text: _write(folder / FILES[3], text)
    for _ in range(flips):
        name = chance.choice(FILES)
        yield "one bit", name, partial(flipped, name=name, where=chance.random(), bit=chance.randrange(8))


def cut(folder: Path, name: str, size: float) -> None:
    """To so many bytes, to a part, or by one byte."""
    whole = _size(folder, name)
    os.truncate(folder / name, whole - 1 if size < 0 else int(whole * size) if 0 < size < 1 else int(size))


def linked(folder: Path, name: str) -> None:
    """The same content, and not a file of the folder."""
    away = folder.parent / f"away-{name}"
    os.rename(folder / name, away)
    (folder / name).symlink_to(away)


def flipped(folder: Path, name: str, where: float, bit: int) -> None:
    data = bytearray(_read(folder / name))
    data[int(where * len(data))] ^= 1 << bit
    _write(folder / name, bytes(data))


def edited(folder: Path, field: str, value: object, seal: bool = False) -> None:
    """Change what the manifest says; with `seal`, with the digest that belongs to it."""
    whole = json.loads(_read(folder / "manifest.json"))
    if value is None:
        whole.pop(field)
    else:
        whole[field] = value
    if seal:
        whole.pop("sha256")
        whole["sha256"] = _digest(whole)
    _write(folder / "manifest.json", json.dumps(whole).encode())


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _size(folder: Path, name: str) -> int:
    return (folder / name).stat().st_size


def tree(folder: Path) -> dict[str, object]:
    """Everything in a folder, links as what they point at."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and _read(path)
        for path in folder.rglob("*")
    }


def seen(folder: Path, made: Damage, run: str) -> None:
    """The damage is found and named, nothing is deleted, and the one before is given."""
    what, named, damage = made
    shutil.copytree(folder, folder.with_name("damaged"), symlinks=True)
    checkpoints = Checkpoints(folder.with_name("damaged"))
    try:
        damage(checkpoints.folder / NEWEST)
        before, told = tree(checkpoints.folder / NEWEST), []
        newest = checkpoints.newest(run, lambda path, why: told.append((path, why)))
        assert newest is not None, f"{what} of {named}: the one before is not used"
        assert newest.folder.name == BEFORE, f"{what} of {named}: not found"
        [(aside, why)] = told
        assert named in why, f"{what} of {named}: {why}"
        now = tree(aside)
        assert now.pop("why-broken.txt") == f"{why}\n".encode()
        assert now == before, f"{what} of {named}: what was put aside is not what was there"
    finally:
        shutil.rmtree(checkpoints.folder)
        for path in checkpoints.folder.parent.glob("away-*"):
            path.unlink()


def test_damage_is_found_named_and_put_aside(tmp_path):
    job("lora").broken_off(tmp_path, AFTER)
    folder = tmp_path / "run" / "checkpoints"
    run = json.loads(_read(folder / NEWEST / "manifest.json"))["run"]
    every = list(damages(random.Random("F5"), count(60, 200)))
    with outcome("F5", "one file of the newest checkpoint damaged", "lora") as found:
        for made in every:
            found.check(partial(seen, folder, made, run))
        found.note = f"{len({what for what, _, _ in every})} kinds, single bits at {count(60, 200)} places"


def goes_on(r60: Job, folder: Path, made: Damage) -> None:
    """The whole way: the same command says what is broken, goes on from the one before, and ends the same."""
    r60.broken_off(folder, AFTER)
    made[2](folder / "run" / "checkpoints" / NEWEST)
    end = r60.done(folder)
    assert end.resumed_after == 48, end.said[-2000:]
    assert "put aside as" in end.said
    assert made[1] in end.said
    assert len(list((folder / "run" / "checkpoints").glob(f"{NEWEST}.broken-*"))) == 1
    r60.same(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("variant", ["lora", "full"])
def test_the_run_goes_on_from_the_one_before(tmp_path, variant):
    r60, chance = job(variant), random.Random(f"F5 {variant}")
    every = [made for made in damages(chance, 20) if made[0] != "a link"]
    with outcome("F5", "the same, and the run made to its end", variant) as found:
        chosen = chance.sample(every, count({"lora": 2, "full": 1}[variant], 30))
        together([partial(found.check, partial(goes_on, r60, tmp_path / str(n), d)) for n, d in enumerate(chosen)])


def test_none_is_left(tmp_path):
    """Nothing is begun again behind anybody's back."""
    r60 = job("lora")
    r60.broken_off(tmp_path, AFTER)
    run = tmp_path / "run"
    for path in (run / "checkpoints").glob("step-*"):
        flipped(path, "model.safetensors", 0.5, 3)
    before = read_lines(run / "metrics.jsonl")
    with outcome("F5", "every checkpoint damaged", "lora") as found:
        for _ in range(2):
            with found.trial():
                end = r60.begin(tmp_path).wait()
                assert end.code == 4, end.said[-2000:]
                assert "checkpoint/none" in end.err
                assert "model.safetensors" in end.err
                assert read_lines(run / "metrics.jsonl") == before
        assert len(list((run / "checkpoints").glob("step-*.broken-*"))) == 2
