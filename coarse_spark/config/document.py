"""A YAML file as plain values, with the place of every key for the report of problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from coarse_spark.config.checks.problem import Key, Problem
from coarse_spark.config.nodes import Record, merged_keys
from coarse_spark.config.readings import Reading
from coarse_spark.errors import ConfigurationError
from coarse_spark.text import counted

# far beyond any configuration, and small enough to parse whatever it holds
_LARGEST = 1_000_000  # bytes
_MOST_MERGED = 100_000  # keys of all mappings, with those that << repeats
_MOST_TOLD = 100  # problems in one report


@dataclass
class Document:
    """The values of one file.

    Attributes
    ----------
    path : of the file.
    content : the values.
    places : text such as "run.yml:12" by the path of a key.
    readings : values that YAML reads as something else than they look.
    problems : those of the YAML itself.
    """

    path: Path
    content: dict[str, Any] = field(default_factory=dict)
    places: dict[Key, str] = field(default_factory=dict)
    readings: dict[Key, Reading] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, key: Key) -> str:
        """Return the place of ``key``, or of the nearest block around it where it is missing."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, str(self.path))

    def report(self, problems: Sequence[Problem]) -> str:
        """Return one message for all problems, in the order of the file."""
        order = {key: position for position, key in enumerate(self.places)}

        def position(problem: Problem) -> int:
            key = problem.key
            while key and key not in order:
                key = key[:-1]
            return order.get(key, 0)

        lines = []
        for problem in sorted(problems, key=position)[:_MOST_TOLD]:
            name = dotted(problem.key)
            lines.append(
                ": ".join(part for part in (self.place(problem.key), name, problem.message) if part)
            )
        if len(problems) > _MOST_TOLD:
            lines.append(f"and {counted(len(problems) - _MOST_TOLD, 'further problem')}")
        count = counted(len(problems), "problem")
        return f"{self.path} has {count}:\n" + "\n".join(f"  {line}" for line in lines)


def dotted(key: Key) -> str:
    """Return a key as people write it, such as "menu.sizes" or "experiment.features[2]"."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in key
    ).removeprefix(".")


def read_document(path: Path, overrides: Mapping[str, str]) -> Document:
    """Read a YAML mapping and replace values by ``overrides`` (dotted key: YAML text).

    Raises
    ------
    ConfigurationError : the file is missing, unreadable, empty, not YAML, or no mapping at its top.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = (
            ", ".join(sorted(str(other) for other in path.parent.glob("*.yml")))
            if path.parent.is_dir()
            else ""
        )
        raise ConfigurationError(
            f"{path} does not exist; expected a YAML file{f', such as {beside}' if beside else ''}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not a text in UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}; expected a YAML file"
        ) from None
    if size > _LARGEST:
        raise ConfigurationError(
            f"{path} has {size} bytes, expected a configuration of at most {_LARGEST}"
        )
    document = Document(path)
    content = _parse(text, str(path), document, ())
    if content is None:
        raise ConfigurationError(
            f"{path} is empty; expected a mapping with blocks such as experiment, treatments "
            "and output"
        )
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{document.place(())}: found a {type(content).__name__}, expected a mapping of "
            "blocks such as experiment:"
        )
    document.content = content
    for key, value in overrides.items():
        _override(document, key, value)
    return document


def _parse(text: str, source: str, document: Document, key: Key) -> Any:
    """Return the values of a text, and keep in ``document`` what is to know of them at ``key``."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            Record(loader, text, source, document).keep(node, key)
            if merged_keys(node) > _MOST_MERGED:
                raise ValueError(
                    f"its merges (<<) repeat keys, expected at most {_MOST_MERGED} in all"
                )
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        detail = ", ".join(part for part in (error.context, error.problem) if part)
        if "found '<scalar>'" in detail:
            detail += "; a value that begins with a quote ends with it: put all of it in quotes"
        raise ConfigurationError(f"{source}{line}: not valid YAML: {detail}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source}: not valid YAML: {error}") from None


def _override(document: Document, key: str, value: str) -> None:
    source = f"--set {key}"
    path = tuple(key.split("."))
    if not all(path):
        document.places[(key,)] = source
        document.problems.append(
            Problem((key,), "found an empty part, expected a dotted key such as menu.seed")
        )
        return
    block = document.content
    for depth, name in enumerate(path[:-1], start=1):
        inner = block.get(name)
        if inner is None:
            inner = block[name] = {}
            document.places.setdefault(path[:depth], source)
        if not isinstance(inner, dict):
            document.places[path[: depth + 1]] = source
            found = ".".join(path[:depth])
            document.problems.append(
                Problem(
                    path[: depth + 1], f"{found} is no mapping of keys, so nothing can be set in it"
                )
            )
            return
        block = inner
    for known in (document.places, document.readings):
        for inner in _below(path, known):
            del known[inner]
    block[path[-1]] = _parse(value, source, document, path)
    document.places |= dict.fromkeys([path, *_below(path, document.places)], source)


def _below(path: Key, known: Mapping[Key, Any]) -> list[Key]:
    return [key for key in known if key[: len(path)] == path]
