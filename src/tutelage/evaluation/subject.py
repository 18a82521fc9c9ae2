"""What is evaluated: a model that is loaded here, or one that an endpoint serves."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from tutelage import files
from tutelage.errors import Problem, RecipeError
from tutelage.generate.client import Endpoint
from tutelage.generate.generation import Prompt, Writer
from tutelage.tasks import Asked
from tutelage.tasks.marking import Answering

if TYPE_CHECKING:
    from tutelage.models.location import Location
    from tutelage.tasks.resident import Resident

IN_FLIGHT = 64
"""Answers written at once by a model in this process."""
AT_ONCE = 8
"""Requests that an endpoint is sent at once."""
DECIDING = ("*.safetensors", "*.gguf", "*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt", "*.py")
"""Files of a model folder that can change an answer."""


class Subject(Answering, Protocol):
    """What is evaluated."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def settings(self) -> dict[str, Any]:
        """What of it can change an answer."""
        ...

    def described(self) -> dict[str, Any]:
        """What else to print of it, once it has answered."""
        ...

    def usage(self) -> dict[str, int]:
        """What it counted so far; empty where nothing is paid for."""
        ...


@dataclass
class Saved:
    """A run's model, a model folder, a .gguf file, or a model of the hub."""

    model: str
    plain: bool = False
    """Ask in plain text also where there is a chat template."""
    trusted: bool = False
    in_flight: int = IN_FLIGHT
    device: str = "auto"

    @property
    def name(self) -> str:
        """The last part of its path."""
        path = Path(self.model)
        last = path.resolve().name if path.exists() else path.name
        return path.resolve().parent.name if last == "model" and path.is_dir() else last

    @cached_property
    def location(self) -> Location:
        """Where it is.

        Raises:
            RecipeError: usage/not-a-run. ModelError, SecurityError: what cannot be loaded.
        """
        from tutelage.generate.chat import model_folder
        from tutelage.models.location import locate

        return locate(str(model_folder(self.model)), trusted=self.trusted)

    @cached_property
    def digest(self) -> str:
        """Of every file that can change an answer, the base model's too."""
        whole = hashlib.sha256()
        for place in (self.location, self.location.base):
            if place is None:
                continue
            folder = Path(place.path)
            named = (
                [folder / place.gguf_file] if place.gguf_file else sorted({p for g in DECIDING for p in folder.glob(g)})
            )
            for path in named:
                whole.update(f"{path.name} {files.sha256(path)}\n".encode())
        return whole.hexdigest()

    def settings(self) -> dict[str, Any]:
        """The content of its files, and how it is asked."""
        return {"sha256": self.digest, "plain": self.plain}

    def described(self) -> dict[str, Any]:
        """Where it is, and how it was rendered."""
        resident = self._resident
        template = resident.local.encoder.template
        return {
            "path": self.model,
            "asked_as": "plain text" if resident.as_text else "chat",
            "template": None if template is None or self.plain else template.sha256,
            "device": str(resident.local.forward.device),
        }

    def usage(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def writer(self) -> Writer:
        """The model with our own engine."""
        return self._resident.writer()

    @cached_property
    def _resident(self) -> Resident:
        from tutelage.generate.chat import Chat
        from tutelage.tasks.resident import Resident

        chat = Chat(self.model, device=self.device, trusted=self.trusted)
        return Resident(chat.forward, chat.encoder, stop_ids=chat.stop_ids, plain=self.plain, in_flight=self.in_flight)

    def prompt(self, asked: Asked, name: str) -> Prompt:
        """Messages where it has a chat template, text where it has none."""
        return self._resident.prompt(asked, name)

    def continuations(self, asked: Asked) -> list[tuple[int, ...]]:
        """Each option by itself after a template's prompt, after a space in plain text."""
        return self._resident.continuations(asked)


@dataclass
class Served:
    """A model behind an endpoint."""

    url: str
    model: str
    plain: bool = False
    key: str | None = None
    at_once: int = AT_ONCE
    endpoint: Endpoint = field(init=False)

    def __post_init__(self) -> None:
        """Refuse an address that is none.

        Raises:
            RecipeError: recipe/bad-value. SecurityError: security/secret, security/key-in-clear.
        """
        self.endpoint = Endpoint(self.url, self.model, chat=not self.plain, key=self.key, concurrency=self.at_once)

    @property
    def name(self) -> str:
        """What the endpoint calls it."""
        return self.model

    def settings(self) -> dict[str, Any]:
        """Its name and address; what is behind them is not known here."""
        return {"endpoint": self.url.rstrip("/"), "model": self.model, "plain": self.plain}

    def described(self) -> dict[str, Any]:
        """Where it is, and how it was asked."""
        return {"host": urlsplit(self.url).hostname, "asked_as": "plain text" if self.plain else "chat"}

    def usage(self) -> dict[str, int]:
        """Requests and tokens, as it counts them."""
        return asdict(self.endpoint.usage)

    def writer(self) -> Writer:
        """The endpoint."""
        return self.endpoint

    def prompt(self, asked: Asked, name: str) -> Prompt:
        """Messages, which the endpoint renders, or text."""
        return Prompt(asked.text() if self.plain else asked.messages, row=name)

    def continuations(self, asked: Asked) -> list[tuple[int, ...]]:
        """Nothing: the tokens of a model behind an endpoint are not known.

        Raises:
            RecipeError: recipe/conflict.
        """
        what = "a task that compares options by likelihood needs the model in this process"
        fix = "name a model folder or hub id, or take a task whose answers are generated, such as `letter`"
        raise RecipeError(Problem("recipe/conflict", what, where=self.url, fix=fix))


def folder_name(subject: Subject) -> str:
    """A name for the folder of its results."""
    return re.sub(r"[^\w.-]+", "-", subject.name).strip("-.") or "model"
