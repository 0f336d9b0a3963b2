"""What README and docs/ show is there: commands, targets, links, the example, the headline."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from coarse_spark import choose_menu
from coarse_spark.cli import app
from coarse_spark.config.models import Configuration
from coarse_spark.config.treatments import DIMENSIONS
from coarse_spark.lake.contract import ALL_TABLES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
# in code: of a line, or of a block
_COMMAND = re.compile(r"(?:^|`)(coarse-spark|make) ([^`\n#]+)", re.MULTILINE)
_LINK = re.compile(r"\]\((?!#)([^)#]+)")


def shown(name: str) -> list[list[str]]:
    """All commands of a name that the pages show, in words."""
    found = [m for page in PAGES for m in _COMMAND.findall(page.read_text(encoding="utf-8"))]
    return [words.split() for command, words in found if command == name]


def unknown(words: list[str]) -> list[str]:
    """What the command line does not know of a command in words."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    options = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    return [word for word in words if word.startswith("-") and word.strip("[]…") not in options]


def test_commands_and_options_are_known() -> None:
    commands = shown("coarse-spark")
    assert len(commands) > 10
    assert [words for words in commands if unknown(words)] == []


@pytest.mark.parametrize("words", [["ran"], ["run", "--confg", "x"], ["runs", "lst"]])
def test_what_is_not_known_is_found(words: list[str]) -> None:
    assert unknown(words)


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wanted = {words[0].rstrip(",.;:") for words in shown("make")}
    assert {"run", "test", "simulate", "headline", "docs"} <= wanted
    assert wanted <= targets


def test_configurations_that_commands_name_are_there() -> None:
    named = {
        path
        for page in PAGES
        for path in re.findall(r"CONFIG=(\S+?\.yml)", page.read_text(encoding="utf-8"))
    }
    assert len(named) >= 2
    assert [path for path in named if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link.split()[0] for link in _LINK.findall(page.read_text(encoding="utf-8"))]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert named == {page.name for page in DOCS.glob("*.md")}


def test_the_headline_of_the_readme_is_that_of_its_page() -> None:
    _, table = (ROOT / "README.md").read_text(encoding="utf-8").split("by make headline -->\n")
    table = table.partition("<!--")[0].strip()
    assert table.count("\n") >= 3  # a heading, a rule and two data sets at least
    assert table in (DOCS / "headline.md").read_text(encoding="utf-8")


def test_the_example_in_python_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(), re.DOTALL)
    rng = np.random.default_rng(0)
    theta = np.column_stack([rng.uniform(1, 2, 50), rng.uniform(0, 1, 50), -rng.uniform(1, 2, 50)])
    names = {"theta": theta}
    exec(code, names)  # noqa: S102  # what the page shows
    assert names["menu"].k == 5
    assert names["row_of_treatment"].shape == (50,)


def test_docstrings_become_lists_of_all_parameters() -> None:
    markdown = runpy.run_path(str(DOCS / "hooks.py"))["markdown_of"](choose_menu.__doc__)
    listed = re.findall(r"^- `([^`]+)`: ", markdown, re.MULTILINE)
    names = {name.strip() for entry in listed for name in entry.split(",")}
    assert set(inspect.signature(choose_menu).parameters) <= names
    assert "-----" not in markdown


def test_every_key_and_every_column_is_in_its_table() -> None:
    on_page_markdown = runpy.run_path(str(DOCS / "hooks.py"))["on_page_markdown"]
    keys, columns = (
        on_page_markdown((DOCS / name).read_text(encoding="utf-8"))
        for name in ("configuration.md", "results.md")
    )
    sections = [field.annotation for field in Configuration.model_fields.values()]
    names = [
        field.alias or name
        for section in (*sections, *DIMENSIONS.values())
        for name, field in getattr(section, "model_fields", {}).items()
    ]
    assert len(names) > 60
    assert [name for name in names if f"| `{name}` |" not in keys] == []
    names = [name for schema in ALL_TABLES.values() for name in schema.columns]
    assert [name for name in names if f"| `{name}` |" not in columns] == []
