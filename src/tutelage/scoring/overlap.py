"""How much of the reference's words or letters the answer has: ROUGE, BLEU and chrF, by the libraries that define them.

Each is computed for one answer at a time, because comparisons need a score for each row. A whole set's BLEU or chrF
is another figure than the mean of these; `corpus` gives it.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import regex

from tutelage.errors import MachineError, Problem
from tutelage.scoring.mark import BadReference, Mark, Scored, check_texts, texts

_ONE_BY_ONE = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts without spaces between words: each of their signs counts as a word."""
_WORD = regex.compile(rf"(?V1)[{_ONE_BY_ONE}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_ONE_BY_ONE}]]+")


class Rouge(Scored):
    """F-measure of ROUGE (Lin 2004); the best of several references.

    Words are those of the benchmark, letters a to z and digits, unless the reference has other letters.
    """

    version: ClassVar[int] = 2
    kind: Literal["rouge"] = "rouge"
    variant: Literal["1", "2", "L"] = "L"
    """Words, pairs of words, or the longest sequence of words that both have in this order."""
    stem: bool = False
    """Compare the stems of English words."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Compare with each reference."""
        name = f"rouge{self.variant}"
        scores = [
            _rouge(name, self.stem, any(not word.isascii() for word in words(one))).score(one, answer)[name].fmeasure
            for one in texts(reference)
        ]
        return Mark(float(max(scores)), answer)

    def check(self, reference: Any) -> None:
        """Refuse what has no word.

        Raises:
            BadReference: it accepts no text, or one without words.
        """
        check_texts(reference)
        if not all(words(one) for one in texts(reference)):
            raise BadReference("the reference has no word")


class Chrf(Scored):
    """chrF (Popović 2015): F2 of sequences of up to six letters, over all references."""

    version: ClassVar[int] = 2
    kind: Literal["chrf"] = "chrf"
    words: int = 0
    """Sequences of words that count, too: 2 gives chrF++."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Compare with all references."""
        return Mark(_bounded(_chrf(self.words).sentence_score(answer, texts(reference)).score), answer)

    def check(self, reference: Any) -> None:
        """Refuse what says nothing.

        Raises:
            BadReference: it accepts no text, or an empty one.
        """
        _check_filled(reference)


class Bleu(Scored):
    """BLEU (Papineni 2002) of one answer; sequences that are longer than the answer do not count."""

    version: ClassVar[int] = 2
    kind: Literal["bleu"] = "bleu"
    tokenize: Literal["13a", "intl", "char", "none"] = "13a"
    """How sacrebleu cuts words."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Compare with all references."""
        return Mark(_bounded(_bleu(self.tokenize).sentence_score(answer, texts(reference)).score), answer)

    def check(self, reference: Any) -> None:
        """Refuse what says nothing.

        Raises:
            BadReference: it accepts no text, or an empty one.
        """
        _check_filled(reference)


def corpus(scorer: Chrf | Bleu, answers: Sequence[str], references: Sequence[str]) -> float:
    """The figure of a whole set, from 0 to 1, as it is published."""
    made = _chrf(scorer.words) if isinstance(scorer, Chrf) else _bleu(scorer.tokenize, whole=True)
    return _bounded(made.corpus_score(list(answers), [list(references)]).score)


def words(text: str) -> list[str]:
    """The words of a text in small letters, in any script."""
    return [str(word) for word in _WORD.findall(unicodedata.normalize("NFC", text).lower())]


class _Words:
    """What cuts words, as the library of ROUGE asks for it."""

    def __init__(self, stem: bool) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stemmer = PorterStemmer() if stem else None

    def tokenize(self, text: str) -> list[str]:
        """The words, those of English without their endings where that is asked for."""
        stemmer = self._stemmer
        return [stemmer.stem(word) if stemmer and word.isascii() and len(word) > 3 else word for word in words(text)]


def _check_filled(reference: Any) -> None:
    check_texts(reference)
    if not all(one.strip() for one in texts(reference)):
        raise BadReference("the reference is empty")


def _bounded(percent: float) -> float:
    return min(max(float(percent) / 100, 0.0), 1.0)


@functools.cache
def _rouge(name: str, stem: bool, other_letters: bool = False) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise missing("rouge", "rouge-score") from error
    return RougeScorer([name], use_stemmer=stem, tokenizer=_Words(stem) if other_letters else None)


@functools.cache
def _chrf(words: int) -> Any:
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise missing("chrf", "sacrebleu") from error
    return CHRF(word_order=words)


@functools.cache
def _bleu(tokenize: str, whole: bool = False) -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise missing("bleu", "sacrebleu") from error
    return BLEU(tokenize=tokenize, effective_order=not whole)


def missing(kind: str, package: str, extra: str = "scorers") -> MachineError:
    """The error for a scorer whose package is not installed."""
    return MachineError(
        Problem(
            "machine/missing-package",
            f"the scorer `{kind}` needs `{package}`, which is not installed",
            fix=f'pip install "tutelage[{extra}]"',
        )
    )
