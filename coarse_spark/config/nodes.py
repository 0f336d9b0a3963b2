"""What is to know of the nodes of a YAML file beyond their values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from coarse_spark.config.checks.problem import Key, Problem
from coarse_spark.config.readings import Reading, strange

if TYPE_CHECKING:
    from coarse_spark.config.document import Document

_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_EQUALS = "tag:yaml.org,2002:value"  # of a lone "=", which no loader can construct


def merged_keys(node: yaml.Node) -> int:
    """Return how many keys all mappings below ``node`` have once << has repeated those of others.

    Each mapping is counted once, however many aliases name it, as it is constructed once.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = 0
        if isinstance(node, yaml.MappingNode):
            merges = [value for name, value in node.value if name.tag == _MERGE]
            own = [part for pair in node.value if pair[0].tag != _MERGE for part in pair]
            for part in own:
                size(part)
            sources = [
                source
                for value in merges
                for source in (value.value if isinstance(value, yaml.SequenceNode) else [value])
            ]
            sizes[id(node)] = len(own) // 2 + sum(map(size, sources))
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                size(item)
        return sizes[id(node)]

    size(node)
    return sum(sizes.values())


@dataclass
class Record:
    """Keeps the lines of keys, keys that occur twice, and what YAML makes of texts.

    Attributes
    ----------
    loader : that constructs values.
    text : of the file.
    source : its name.
    document : that keeps what is found.
    seen : nodes that were visited: the keys of an alias have places where they are written.
    """

    loader: yaml.SafeLoader
    text: str
    source: str
    document: Document
    seen: set[int] = field(default_factory=set)

    def keep(self, node: yaml.Node, key: Key) -> None:
        """Keep what is to know of ``node``, the value at ``key``, and of all below it."""
        self.document.places.setdefault(key, self._place(node))
        if id(node) in self.seen:
            return
        self.seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            self._scalar(node, key)
        elif isinstance(node, yaml.MappingNode):
            self._mapping(node, key)
        elif isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                self.keep(item, (*key, position))

    def _place(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}"

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> None:
        if node.tag == _EQUALS:
            node.tag = _STRING
        if node.style is not None:
            return
        try:
            value = self.loader.construct_object(node)
        except ValueError as error:  # such as of the date 2024-13-01
            raise yaml.MarkedYAMLError(
                f"{node.value} cannot be read; in quotes it is a text",
                None,
                str(error),
                node.start_mark,
            ) from None
        if strange(node.value, value):
            self.document.readings[key] = Reading(node.value, value)

    def _mapping(self, node: yaml.MappingNode, key: Key) -> None:
        if node.flow_style:
            self._join_commas(node, key)
        lines: dict[str, int] = {}
        for name, value in list(node.value):
            if not isinstance(name, yaml.ScalarNode) or name.tag == _MERGE:
                continue
            # a key is always a name: YAML would read the keys `on` and `no` as true and false
            name.tag = _STRING
            inner = (*key, name.value)
            if name.value in lines:
                message = (
                    f"the key occurs twice, first in line {lines[name.value]}; expected it once"
                )
                self.document.places[inner] = self._place(name)
                self.document.problems.append(Problem(inner, message))
                node.value.remove((name, value))
                continue
            lines[name.value] = name.start_mark.line + 1
            self.document.places[inner] = self._place(name)
            self.keep(value, inner)

    def _join_commas(self, node: yaml.MappingNode, key: Key) -> None:
        """Put values together that commas cut within parentheses: in {…} a comma ends a value."""
        pairs: list[tuple[yaml.Node, yaml.Node]] = []
        for name, value in node.value:
            before = pairs[-1][1] if pairs else None
            if before is not None and _is_open(before) and _is_empty(value):
                before.value = self.text[before.start_mark.index : name.end_mark.index]
                before.end_mark = name.end_mark
                if not _is_open(before):
                    message = (
                        "the commas in {…} end the value, expected quotes around it: "
                        f'"{before.value}"'
                    )
                    self.document.problems.append(Problem((*key, pairs[-1][0].value), message))
                continue
            pairs.append((name, value))
        node.value = pairs


def _is_open(node: yaml.Node) -> bool:
    """Return whether a value without quotes has a parenthesis that nothing closes."""
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return plain and node.value.count("(") > node.value.count(")")


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and not node.value
