"""The tokenizer as a server has it, and the template in use with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.data.encode.template import ChatTemplate
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.errors import ModelError, Problem
from tutelage.models.load import quiet_transformers, unreadable
from tutelage.models.location import Location
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
        tokenizer = AutoTokenizer.from_pretrained(location.path, **location.arguments())
    except (OSError, ValueError, KeyError, ImportError) as error:
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

    With `model.template` unset it is the tokenizer's own, or none where the tokenizer has none.

    Raises:
        ModelError: template/missing, template/broken, template/not-the-tokenizers.
    """
    special = {role: str(text) for role, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default") if options.template is not None else _default_of(own)
    if options.template == "none":
        template = None
    elif options.template is not None:
        template = ChatTemplate.named(options.template, special)
    else:
        template = None if own is None else ChatTemplate(own, special, name="the tokenizer's own")
    encoder = Tokenizer(tokenizer.backend_tokenizer, special, structure="" if template is None else template.source)
    if template is not None:
        _check_tokens_of(template, encoder)
        _compare_rendering(tokenizer, template)
    return encoder, template


def _default_of(templates: dict[str, str]) -> str:
    """The template that servers take of several."""
    if "default" not in templates:
        raise ModelError(
            Problem(
                "template/missing",
                "the tokenizer has several chat templates, and none is the default",
                found=", ".join(sorted(templates)),
                fix="save the one that you mean as a file, and name it: model.template=FILE.jinja",
            )
        )
    return templates["default"]


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


def _compare_rendering(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
    """Our rendering equals the one of `transformers`, which servers use."""
    probe = [
        {"role": "user", "content": "One <b>é</b>?\n"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "  Three "},
    ]
    try:
        ours = template.render(probe, generation_prompt=True)
    except ModelError:
        return  # A template that refuses this probe is judged by the rows themselves.
    theirs = tokenizer.apply_chat_template(
        probe, chat_template=template.source, tokenize=False, add_generation_prompt=True
    )
    if ours != theirs:
        raise ModelError(
            Problem(
                "template/not-the-tokenizers",
                "the chat template renders differently here and in transformers",
                where=template.name,
                found=f"here {ours!r}, there {theirs!r}",
                fix="please report this with the template; nothing was trained",
            )
        )
