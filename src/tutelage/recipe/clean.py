"""What is done about rows that look wrong: one option a rule."""

from __future__ import annotations

from typing import Literal

from tutelage.recipe.base import Section

Keep = Literal["keep", "drop"]
Repair = Literal["keep", "repair", "drop"]


class CleanOptions(Section):
    """Each rule keeps and counts the rows that it finds, repairs them, or drops them.

    The first sentence of each docstring says what is found, the rest what a repair does.
    """

    mojibake: Repair = "keep"
    """Text decoded with the wrong encoding, such as the three signs in the place of an apostrophe. A repair is made by
    the package `ftfy`, where it is sure; what it is not sure of is kept."""
    line_endings: Repair = "repair"
    """Carriage returns and Unicode's line and paragraph separators. They become line feeds."""
    control_characters: Repair = "repair"
    """Control characters other than tab and line feed. Removed, with their sequence where they colour a terminal's
    text; vertical tabs and form feeds become line feeds, and those from 80 to 9F the Windows characters they stand
    for."""
    zero_width: Repair = "repair"
    """Zero-width spaces and joiners, and byte order marks. Removed, but not where a script or an emoji needs them."""
    bidi_controls: Repair = "keep"
    """Controls of writing direction, in right-to-left text only overrides. Removed."""
    tag_characters: Repair = "keep"
    """Invisible copies of ASCII, which can hide instructions, outside of the flags that are spelled with them.
    Removed."""
    unicode_nfc: Repair = "keep"
    """Text that is not in Unicode's composed form, NFC. Repaired to it."""
    replacement_character: Keep = "keep"
    """U+FFFD, left where another program could not decode a character."""
    placeholders: Repair = "repair"
    """`<noinput>` and `<nooutput>` in their spellings. An input that is nothing else is removed, a row whose answer is
    nothing else is dropped, and the rest is kept."""
    template_variables: Keep = "keep"
    """Variables that were not filled in, as `{{name}}` or `<NAME>`."""
    secrets: Repair = "keep"
    """Keys, tokens and passwords, by their prefixes or by their names and randomness. Masked as `[SECRET]`."""
    personal_data: Repair = "keep"
    """E-mail addresses, phone numbers, and credit cards and IBANs whose check digits are right. Masked as `[EMAIL]`,
    `[PHONE]`, `[CARD]` and `[IBAN]`."""
    empty_turns: Repair = "keep"
    """Turns of the context without content; a tool may answer nothing. Empty system turns are removed, others kept."""
    same_role_turns: Repair = "keep"
    """Two turns of one role in a row. Turns of the user or the system are joined with an empty line, others kept."""
    role_order: Keep = "keep"
    """A system turn after the start, an answer before any question, a tool's turn that nothing called for, or no answer
    at the end."""
    refusals: Keep = "keep"
    """Answers that decline, as in "As an AI language model" or "I'm sorry, but I cannot", in English and Chinese."""
    prompt_copied: Keep = "keep"
    """Answers that are equal to the prompt or to its input, or begin with the prompt."""
    truncated_answers: Keep = "keep"
    """Long answers that end in the middle of a sentence, and answers with a code block that is not closed."""
    repetition_loops: Keep = "keep"
    """Answers that end with the same words many times over."""
    other_script: Keep = "keep"
    """Answers in another script than the prompt, which does not speak of a language or of translation."""
