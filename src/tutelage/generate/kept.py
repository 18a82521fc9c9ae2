"""Answers of an endpoint in a file, so that what was paid for is not asked for again."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from tutelage.files import append, explained


def request_key(url: str, path: str, body: dict[str, Any]) -> str:
    """The name of a request: all that decides its answer. The key to the endpoint is no part of it."""
    text = json.dumps([url, path, body], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Kept:
    """A file of answers, one a line, by the request's name; without a path, nothing is kept."""

    def __init__(self, path: str | Path | None) -> None:
        """Read what is there; a line that was cut off by a crash is passed over."""
        self.path = None if path is None else Path(path)
        self._writing = threading.Lock()
        self._answers: dict[str, dict[str, Any]] = {}
        if self.path is None or not self.path.is_file():
            return
        with self.path.open("rb") as file:
            data = file.read()
        for line in data.splitlines():
            try:
                record = json.loads(line)
                self._answers[record["request"]] = record["answer"]
            except (ValueError, KeyError, TypeError):
                continue
        self._whole = data.endswith(b"\n") or not data

    _whole = True
    """Whether the file ends with a whole line."""

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> dict[str, Any] | None:
        """What was answered."""
        return self._answers.get(key)

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer.

        Raises:
            MachineError: machine/disk-full, machine/read-only.
        """
        with self._writing:
            self._answers[key] = answer
            if self.path is None:
                return
            line = json.dumps({"request": key, "answer": answer}, ensure_ascii=False).encode() + b"\n"
            with explained(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                append(self.path, line if self._whole else b"\n" + line)
            self._whole = True
