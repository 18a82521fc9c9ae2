"""`track/NAME.json`: how far a tracker has been told, written whole, so that another follower can go on from there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields

from filelock import FileLock

from tutelage import files
from tutelage.runs import Run


@dataclass(slots=True)
class Note:
    """What one tracker holds for certain."""

    sent: dict[str, int] = field(default_factory=dict)
    """The last step of each stream."""
    status: str | None = None
    """How the run ended, as the tracker was told."""
    remote: str | None = None
    """What the tracker calls the run, where it chose that itself."""
    follower: int | None = None
    """The process that is telling it."""
    error: str | None = None
    """What went wrong last, while it is not mended."""

    @classmethod
    def read(cls, run: Run, name: str) -> Note:
        """The note, or an empty one."""
        stored = run.read_json(f"track/{name}.json") or {}
        return cls(**{f.name: stored[f.name] for f in fields(cls) if f.name in stored})

    def write(self, run: Run, name: str) -> None:
        """Replace the note."""
        Run(run.folder / "track").write_json(f"{name}.json", asdict(self))

    @staticmethod
    def sweep(run: Run, name: str) -> None:
        """Remove what a follower left that was killed while it wrote; nothing while another follows."""
        part = files.part_of(run.folder / "track" / f"{name}.json")
        with suppress(Exception):  # Nothing that a tracker does may end the run.
            if part.exists():
                with FileLock(part.with_name(f"{name}.lock"), timeout=0):
                    part.unlink(missing_ok=True)
