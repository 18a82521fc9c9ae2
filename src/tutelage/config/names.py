"""Dotted names of options: `data.train.0.path` in a recipe, `data.train.N.path` where it is declared.

One spelling serves the file, the command line, the origins, the messages and the reference.
"""

from __future__ import annotations


def join(section: str, key: str) -> str:
    """The name of a key in a section; the empty section is the top level."""
    return f"{section}.{key}" if section else key


def within(name: str, section: str) -> bool:
    """Whether a name is the section itself or inside it."""
    return name == section or name.startswith(f"{section}.")


def general(name: str) -> str:
    """The name as it is declared: each place in a list is N."""
    return ".".join("N" if key.isdecimal() else key for key in name.split("."))


def last_key(name: str) -> str:
    """The key without its sections."""
    return name.rpartition(".")[2]


def plain_name(key: str) -> str:
    """A key in small letters and with underscores, as options are spelled."""
    return key.lower().replace("-", "_")
