"""What the pages, recipes and examples say is so."""

from __future__ import annotations

import itertools
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tutelage import config
from tutelage.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language ("" for none)."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The `tutelage` commands in a text, comments removed."""
    return [shlex.split(line, comments=True) for line in re.findall(r"^(?:\$ |# +)?(tutelage .*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_each_recipe_is_whole_and_its_data_is_there(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    resolved = config.load(recipe).recipe
    paths = [str(source.path) for source in resolved.data.train]
    # What lies in data/ is for the user to bring; the comment block says what it is.
    assert all(Path(path).is_file() or path.startswith("data/") for path in paths)
    assert recipe.read_text().startswith("# "), "a comment block says what the recipe is for"
    assert Path(resolved.output).name == recipe.stem


@pytest.mark.model
def test_check_accepts_a_recipe_as_it_stands(real_model, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, ["check", "recipes/alpaca-lora.yaml", "output=runs/none", "--json"])
    assert result.exit_code == 0, result.output
    ledger = json.loads(result.stdout)["ledger"]
    assert ledger["rows"] == ledger["trained"] + ledger["heldout"] == 212
    assert not (ROOT / "runs" / "none").exists()


def test_the_recipe_in_the_readme_is_one():
    (text,) = blocks(ROOT / "README.md", "yaml")
    from ruamel.yaml import YAML

    resolved = config.resolve(YAML(typ="safe").load(text))
    assert resolved.recipe.output == "runs/support"


GROUPS = {group.name for group in app.registered_groups}


def verbs_of(app):
    """Each verb with its options as they are typed."""
    for name, made in typer.main.get_group(app).commands.items():
        if name in GROUPS:
            for inner, deep in made.commands.items():
                yield f"{name} {inner}", {word for option in deep.params for word in option.opts}
        else:
            yield name, {word for option in made.params for word in option.opts}


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda path: path.name)
def test_each_command_on_a_page_exists_with_its_options(page):
    verbs = dict(verbs_of(app))
    for command in commands(page.read_text("utf-8")):
        said = f"{page.name}: {' '.join(command)}"
        name = " ".join(command[1:3]) if command[1] in GROUPS else command[1]
        assert name in verbs, said
        given = {word.partition("=")[0] for word in command if word.startswith("-")}
        assert given <= verbs[name] | {"--help"}, said
        for before, word in itertools.pairwise(command[2:]):
            if "=" in word and not word.startswith("-") and not before.startswith("-"):
                option = word.partition("=")[0]
                names = {re.sub(r"\.N\b", ".0", o.name) for o in config.options()}
                assert any(name == option or name.startswith(f"{option}.") for name in names), word


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_example_data_is_what_its_script_makes():
    made = runpy.run_path(str(ROOT / "examples" / "instructions.py"))["rows"]()
    committed = (ROOT / "examples" / "data" / "instructions.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in committed] == made
    assert len({(row["instruction"], row["input"]) for row in made}) == len(made)


def test_help_of_each_verb_ends_with_an_example_that_parses():
    for group in (app, *(group.typer_instance for group in app.registered_groups)):
        for command in group.registered_commands:
            assert command.epilog, command.callback.__name__
            (words,) = commands(command.epilog)
            assert words[1 if group is app else 2] == (command.name or command.callback.__name__)
