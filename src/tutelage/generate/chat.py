"""A saved model to talk to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tutelage.data.encode import Encoder
from tutelage.errors import Problem, RecipeError
from tutelage.generate.continuation import Continuation
from tutelage.generate.engine import room, stream
from tutelage.models.adapters import own_stop_ids
from tutelage.models.forward import prove
from tutelage.models.load import choose_device, load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.recipe import ModelOptions
from tutelage.types import Message


class Chat:
    """A saved model to talk to; it answers as training rendered, and stops by itself."""

    def __init__(self, folder: str | Path, *, device: str = "auto", trusted: bool = False) -> None:
        """Load a run's model, or any model folder; with `trusted`, code in the folder may run.

        Raises:
            RecipeError: usage/not-a-run. ModelError, SecurityError: what cannot be loaded.
        """
        from transformers import GenerationConfig

        path = str(model_folder(folder))
        location = locate(path, trusted=trusted)
        tokenizer = load_tokenizer(location)
        several = isinstance(tokenizer.chat_template, dict) and "default" in tokenizer.chat_template
        options = ModelOptions(path=path, template="default" if several else None)
        self.encoder = Encoder(*chat_tokenizer(tokenizer, options))
        model = load_model(location, device=choose_device(device))
        if (Path(location.path) / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(location.path, local_files_only=True)
        self.stop_ids = own_stop_ids(model) or [id for id in (self.encoder.tokenizer.eos_id,) if id is not None]
        self.forward = prove(model, max_length=1)
        self.stopped = True
        """Whether the last answer ended by itself."""

    def answer(self, messages: Sequence[Message], *, max_new_tokens: int = 512) -> Iterator[str]:
        """The answer to the messages, piece by piece. Without a template the last message is continued as text."""
        tokenizer = self.encoder.tokenizer
        decode = tokenizer.decode  # A space that follows the prompt is the template's, which writes it again later.
        if self.encoder.template is None:
            prompt, decode = tokenizer.encode_text(messages[-1].content), Continuation(tokenizer).decode
        else:
            prompt = self.encoder.prompt_ids(messages)
        ids: list[int] = []
        shown = ""
        for id in stream(self.forward, prompt, stop_ids=self.stop_ids, max_new_tokens=max_new_tokens):
            ids.append(id)
            text = decode(ids)
            if not text.endswith("�"):
                yield text[len(shown) :]
                shown = text
        self.stopped = len(ids) < room(self.forward, prompt, max_new_tokens)


def model_folder(folder: str | Path) -> Path:
    path = Path(folder)
    for candidate in (path / "model", path):
        if (candidate / "config.json").is_file() or (candidate / "adapter_config.json").is_file():
            return candidate
    if not path.is_dir():
        return path  # A hub id, a .gguf file or the demo name; `locate` knows.
    raise RecipeError(
        Problem(
            "usage/not-a-run",
            f"`{folder}` holds no trained model",
            where=str(folder),
            found="neither config.json nor adapter_config.json, here or in model/",
            fix="name a run folder whose training has finished, or a model folder",
        )
    )
