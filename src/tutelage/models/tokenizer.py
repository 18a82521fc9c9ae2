"""The tokenizer as a server has it, and the template in use with it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.data.encode import clock
from tutelage.data.encode.template import NAMED, ChatTemplate
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.errors import ModelError, Problem, TutelageError
from tutelage.models.foreign import code_allowed
from tutelage.models.load import quiet_transformers, unreadable
from tutelage.models.location import Location
from tutelage.models.settings import read_object
from tutelage.recipe import ModelOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(location: Location) -> PreTrainedTokenizerBase:
    """The tokenizer as `transformers` loads it; the reference for every id.

    Raises:
        ModelError: model/missing, model/unreadable.
    """
    quiet_transformers()
    from transformers import AutoTokenizer

    try:
        with code_allowed(location.trusted):
            tokenizer = AutoTokenizer.from_pretrained(location.path, **location.arguments())
    except TutelageError:
        raise
    except Exception as error:  # the reader of tokenizer.json raises nothing more special
        raise unreadable(location, "tokenizer", error) from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelError(
            Problem(
                "model/unreadable",
                "the tokenizer has no fast form",
                where=location.path,
                found=type(tokenizer).__name__,
                fix="convert it to tokenizer.json (transformers' AutoTokenizer.save_pretrained writes one)",
            )
        )
    return tokenizer


def chat_tokenizer(tokenizer: PreTrainedTokenizerBase, options: ModelOptions) -> tuple[Tokenizer, ChatTemplate | None]:
    """What renders and encodes: the tokenizer's backend, and the template in use.

    With `model.template` unset it is the tokenizer's own, or none where the tokenizer has none; of several, it names
    one.

    Raises:
        ModelError: template/missing, template/ambiguous, template/broken, template/not-the-tokenizers.
    """
    special = {role: str(text) for role, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    wanted, own = options.template, tokenizer.chat_template
    several = own if isinstance(own, dict) else {}
    if wanted == "none":
        template = None
    elif wanted in several and wanted not in NAMED:
        template = ChatTemplate(several[wanted], special, name=f"the tokenizer's own `{wanted}`")
    elif wanted is not None:
        template = ChatTemplate.named(wanted, special)
    else:
        _refuse_two_sources(Path(tokenizer.name_or_path))
        source = _only_one_of(several) if several else own
        template = None if not source else ChatTemplate(source, special, name="the tokenizer's own")
    encoder = Tokenizer(tokenizer.backend_tokenizer, special, structure="" if template is None else template.source)
    if template is not None:
        _check_tokens_of(template, encoder)
        _compare_rendering(tokenizer, template)
    return encoder, template


def _only_one_of(templates: dict[str, str]) -> str:
    if len(templates) > 1:
        raise ModelError(
            Problem(
                "template/ambiguous",
                f"the tokenizer has {len(templates)} chat templates",
                found=", ".join(sorted(templates)),
                why="the model would be trained on one of them and may be served with another",
                fix=f"name the one that you mean: model.template={'default' if 'default' in templates else 'NAME'}",
            )
        )
    return next(iter(templates.values()))


def _refuse_two_sources(folder: Path) -> None:
    """A template may stand in two files; where they differ, one server takes this one and another that."""
    file, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if not (file.is_file() and settings.is_file()):
        return
    inside = read_object(settings).get("chat_template")
    # A template ends without its last line break, with or without which a file is saved.
    if isinstance(inside, str) and inside.removesuffix("\n") != file.read_text("utf-8").removesuffix("\n"):
        raise ModelError(
            Problem(
                "template/ambiguous",
                "the tokenizer has two chat templates, which differ",
                where=str(folder),
                found="chat_template.jinja, and chat_template in tokenizer_config.json",
                why="some programs read the one and some the other",
                fix=f"name the one that you mean: model.template={file}, or a copy of the other",
            )
        )


def _check_tokens_of(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    """A named template's control tokens must be single tokens of this vocabulary."""
    if template.name != "chatml":
        return
    missing = [token for token in ("<|im_start|>", "<|im_end|>") if tokenizer.backend.token_to_id(token) is None]
    if missing:
        raise ModelError(
            Problem(
                "template/missing-tokens",
                "the vocabulary does not hold the tokens of the chat template",
                where=template.name,
                found=f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in the vocabulary",
                why="without them the end of a turn would be ordinary text, and the model would not stop on it",
                fix="model.template=alpaca uses the end-of-sequence token alone",
            )
        )


def _compare_rendering(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, *, again: bool = True) -> None:
    """Our rendering equals the one of `transformers`, which servers use."""
    probe = [
        {"role": "user", "content": "One <b>é</b>?\n"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "  Three "},
    ]
    try:
        with clock.at(datetime.now()):  # As there, whenever the run was begun.
            ours = template.render(probe, generation_prompt=True)
    except ModelError:
        return  # A template that refuses this probe is judged by the rows themselves.
    theirs = tokenizer.apply_chat_template(
        probe, chat_template=template.source, tokenize=False, add_generation_prompt=True
    )
    if ours != theirs and template.uses_clock and again:
        _compare_rendering(tokenizer, template, again=False)  # A minute may have passed in between.
    elif ours != theirs:
        raise ModelError(
            Problem(
                "template/not-the-tokenizers",
                "the chat template renders differently here and in transformers",
                where=template.name,
                found=f"here {ours!r}, there {theirs!r}",
                fix="please report this with the template; nothing was trained",
            )
        )
