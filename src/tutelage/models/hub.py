"""A model of the hub as a folder on this machine: one commit of it, and of that only what cannot run code."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from tutelage.errors import ModelError, Problem

WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""Weights, settings, vocabularies and templates; nothing else is fetched."""
LONGEST_ID = 96
_ID = re.compile(r"[A-Za-z0-9](?:[\w.-]*\w)?/[A-Za-z0-9](?:[\w.-]*\w)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_id(name: str) -> bool:
    """Whether it has the form owner/name."""
    return _ID.fullmatch(name) is not None and len(name) <= LONGEST_ID and ".." not in name and "--" not in name


def fetch(id: str, revision: str | None = None, *, code: bool = False) -> tuple[Path, str]:
    """The folder of a model, and its commit: what the branch or tag stands for now, or stood for when there was a hub.

    With `code` its Python files are fetched too.

    Raises:
        ModelError: model/missing.
    """
    from huggingface_hub import HfApi, snapshot_download

    wanted = (*WANTED, "*.py") if code else WANTED
    try:
        try:
            found = HfApi().model_info(id, revision=revision)
        except Exception as error:  # every transport has errors of its own; what was fetched before still serves
            folder = Path(snapshot_download(id, revision=revision, allow_patterns=list(wanted), local_files_only=True))
            if not any(folder.glob("*.json")):
                raise error
            return folder, folder.name
        commit = str(found.sha)
        if not _COMMIT.fullmatch(commit):
            raise OSError(f"the hub names the commit {commit[:60]!r}")
        names = [file.rfilename for file in found.siblings or []]
        chosen = [name for name in names if _is_wanted(name, wanted)]
        exactly = [re.sub(r"([*?\[])", r"[\1]", name) for name in chosen]
        # By its branch or tag, so that it is found under that name without a network, too.
        folder = Path(snapshot_download(id, revision=revision, allow_patterns=exactly))
        if folder.name != commit:
            raise OSError("the model was changed while it was fetched; try again")
        return folder, commit
    except Exception as error:
        raise _missing(id, revision, error) from error


def _is_wanted(name: str, wanted: tuple[str, ...]) -> bool:
    """Of the model's own folder, and its further templates; other folders hold the same model in other forms."""
    folder = name.rpartition("/")[0]
    return folder in ("", "additional_chat_templates") and any(fnmatch.fnmatch(name, pattern) for pattern in wanted)


def _missing(id: str, revision: str | None, error: Exception) -> ModelError:
    text = str(error).strip().splitlines()
    return ModelError(
        Problem(
            "model/missing",
            f"the model `{id}` could not be fetched",
            where=id if revision is None else f"{id} at {revision}",
            found=(text[0] if text else type(error).__name__)[:300],
            why="there is no such folder here, and the hub did not give it",
            fix="check the spelling of model.path, the network, or name a local folder",
        )
    )
