"""What the pages are given when they are built: docstrings as Markdown, tables of keys and columns.

Docstrings of this project name parameters as ``name : description``, over several lines, which the
styles that tools know take for types. Here sections become lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from inspect import cleandoc
from typing import Any, get_args

import griffe
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

KEYS, COLUMNS = "<!-- all keys -->", "<!-- all columns -->"
_SECTION = re.compile(r"^(Parameters|Attributes|Returns|Raises|Examples)\n-+\n", re.MULTILINE)


def markdown_of(docstring: str) -> str:
    """Return a docstring as Markdown: sections as bold words, what they list as lists."""
    before, *sections = _SECTION.split(cleandoc(docstring))
    parts = [before]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        parts.append(f"**{title}**\n\n{_examples(body) if title == 'Examples' else _listed(body)}")
    return "\n\n".join(part.strip() for part in parts)


def _examples(body: str) -> str:
    return f"```python\n{body.strip()}\n```"


def _listed(body: str) -> str:
    # a line that is not indented begins an entry; what has no colon is a paragraph
    entries = re.split(r"\n+(?=\S)", body.strip())
    lines = []
    for entry in entries:
        name, colon, text = (part.strip() for part in entry.partition(" : "))
        words = " ".join((text if colon else entry).split())
        lines.append(f"- `{name}`: {words}" if colon else f"\n{words}\n")
    return "\n".join(lines)


class Docstrings(griffe.Extension):
    """Turn all docstrings into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Turn the docstring of one object into Markdown."""
        if obj.docstring is not None:
            obj.docstring.value = markdown_of(obj.docstring.value)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables of all configuration keys, and of all columns of the output, in their places.

    Parameters
    ----------
    markdown : of a page.
    """
    for place, tables in ((KEYS, _key_tables), (COLUMNS, _column_tables)):
        if place in markdown:
            markdown = markdown.replace(place, "\n".join(tables()))
    return markdown


def _key_tables() -> Iterator[str]:
    from coarse_spark.config.models import Configuration
    from coarse_spark.config.treatments import DIMENSIONS, CandidateList
    from coarse_spark.report.wording import sentence

    for block, field in Configuration.model_fields.items():
        yield f"\n### {block}\n\n{sentence(_cell(field.description))}\n"
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from _keys(model)
        elif block == "treatments":
            for form in (*DIMENSIONS.values(), CandidateList):
                yield f"\n{_cell(form.__doc__)}\n"
                yield from _keys(form)


def _keys(model: type[BaseModel]) -> Iterator[str]:
    yield from _table("key", "default")
    for name, key in model.model_fields.items():
        yield f"| `{key.alias or name}` | {_default(key)} | {_cell(key.description)} |"
    for name, key in model.model_fields.items():
        for entry in get_args(key.annotation):
            if isinstance(entry, type) and issubclass(entry, BaseModel):
                yield f"\nEvery entry of `{name}`:\n"
                yield from _keys(entry)


def _column_tables() -> Iterator[str]:
    from coarse_spark.lake.contract import ALL_TABLES, OutputLayout, columns_of

    layout = OutputLayout("bigint", {"depth": "double", "days": "double"}, 6)
    for schema in ALL_TABLES.values():
        yield f"\n### {schema.name}\n\n{_cell(schema.comment)}.\n"
        yield from _table("column", "type")
        for column in columns_of(schema, layout):
            yield f"| `{column.name}` | `{column.sql_type}` | {_cell(column.comment)} |"


def _table(*columns: str) -> Iterator[str]:
    yield f"| {' | '.join(columns)} | what it says |"
    yield "|---" * len(columns) + "|---|"


def _default(key: Any) -> str:
    value = key.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "to be given"
    if value is None or value in ([], (), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return ", ".join(
        f"`{part}`" for part in (value if isinstance(value, tuple | list) else [value])
    )


def _cell(text: str | None) -> str:
    return escape(str(text), quote=False).replace("|", "\\|")
