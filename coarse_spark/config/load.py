"""Load a configuration from YAML, or report every problem in it at once, each with its line."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from coarse_spark.config.checks import Problem, find_problems
from coarse_spark.config.checks.problem import brief
from coarse_spark.config.document import dotted, read_document
from coarse_spark.config.fields import EXPECTED, EXPLAINED
from coarse_spark.config.models import Configuration
from coarse_spark.config.readings import explained, refuse
from coarse_spark.config.retired import without_retired
from coarse_spark.config.treatments import DIMENSIONS, CandidateList, beside, treatment_names
from coarse_spark.errors import ConfigurationError, nearest

_KINDS = ("continuous", "categorical")

log = logging.getLogger(__name__)


def load_configuration(
    path: str | Path, overrides: Mapping[str, str] | None = None
) -> Configuration:
    """Return the configuration in the YAML file at ``path``.

    What could be left out, and what is assumed where it is, is logged.

    Parameters
    ----------
    path : the file.
    overrides : values by dotted key, such as ``{"menu.seed": "3"}``; each is read as YAML and
        replaces what the file says.

    Raises
    ------
    ConfigurationError : the file cannot be read or has problems. The message has one line for each:
        file and line, dotted key, what was found, what was expected and the nearest valid name.
    """
    configuration, notes = read_configuration(path, overrides)
    for note in notes:
        log.warning("%s", note)
    return configuration


def read_configuration(
    path: str | Path, overrides: Mapping[str, str] | None = None
) -> tuple[Configuration, list[str]]:
    """Return the configuration, and a sentence for every key that could be left out or is assumed.

    Parameters and errors are those of ``load_configuration``.
    """
    document = read_document(Path(path), overrides or {})
    refused = list(refuse(document.content, document.readings))
    content = {key: {} if value is None else value for key, value in document.content.items()}
    content = beside(content, Path(path).absolute().parent)
    content, retired, problems = without_retired(content)
    problems += _field_problems(content)
    names = treatment_names(content.get("treatments"))
    problems += find_problems(_valid_values(content), names, _given(content))
    problems = explained(problems, refused, document.readings) + refused + document.problems
    if problems:
        raise ConfigurationError(document.report(problems))
    notes = [
        f"{document.place(key)}: {dotted(key)} is no longer needed and can be left out"
        for key in retired
    ]
    configuration = Configuration.model_validate(content)
    if "design.kind" not in _given(content):
        notes.append(
            f"{path}: design.kind is not given, and honest values rest on it: treatments are taken "
            f"as {configuration.design.kind}"
        )
    return configuration, notes


def _field_problems(content: Mapping[str, Any]) -> list[Problem]:
    """Return the problems of single fields.

    Those across fields come from ``find_problems``, on what is valid.
    """
    problems = []
    for name, field in Configuration.model_fields.items():
        if name in content:
            try:
                _adapter(field).validate_python(content[name])
            except ValidationError as error:
                details = error.errors(include_url=False)
                problems += [_problem((name, *item["loc"]), item) for item in details]
        elif field.is_required():
            problems.append(Problem((name,), f"the block is missing; expected {field.description}"))
    for name in content:
        if name not in Configuration.model_fields:
            problems.append(Problem((name,), _unknown(name, Configuration)))
    return problems


def _valid_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return every value that is valid by itself, defaults included, by dotted key."""
    values: dict[str, Any] = {}
    for name, field in Configuration.model_fields.items():
        model = field.annotation
        if not _is_section(model):
            values |= _valid(name, field, content, name)
            continue
        block = content.get(name, None if field.is_required() else {})
        if isinstance(block, Mapping):
            for key, entry in model.model_fields.items():
                label = entry.alias or key
                values |= _valid(f"{name}.{label}", entry, block, label)
    return values


def _given(content: Mapping[str, Any]) -> set[str]:
    return {
        f"{name}.{key}"
        for name, block in content.items()
        if isinstance(block, Mapping)
        for key in block
    }


def _valid(key: str, field: FieldInfo, block: Mapping[str, Any], name: str) -> dict[str, Any]:
    if name not in block:
        default = field.get_default(call_default_factory=True, validated_data={})
        return {} if default is PydanticUndefined else {key: default}
    try:
        return {key: _adapter(field).validate_python(block[name])}
    except ValidationError:
        return {}


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    return TypeAdapter(field.rebuild_annotation())


def _is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _problem(location: tuple[str | int, ...], error: ErrorDetails) -> Problem:
    """Return one of pydantic's errors in the words of the report."""
    key = location
    model: Any = Configuration.model_fields[str(location[0])].annotation
    if location[0] == "treatments":
        # pydantic puts the tags of the unions' members behind the block and a dimension's name
        model, key = None, location[:1] + location[2:]
        if location[1:2] == ("candidates",):
            model = CandidateList
        elif len(key) > 2:
            model, key = DIMENSIONS.get(key[2]), key[:2] + key[3:]
    if error["type"] == "missing":
        return Problem(key, f"the key is missing; expected {_field(model, key[-1]).description}")
    if error["type"] == "extra_forbidden":
        return Problem(key, _unknown(str(key[-1]), model))
    if error["type"] == EXPLAINED:
        return Problem(key, error["msg"])
    if error["type"].startswith("union_tag"):
        tag = error.get("ctx", {}).get("tag")
        expected = f"{' or '.join(_KINDS)}{nearest(tag, _KINDS) if tag else ''}"
        return Problem(
            (*key, "kind"), f"found {brief(tag) if tag else 'no kind'}, expected {expected}"
        )
    return Problem(key, f"found {brief(error['input'])}, expected {_expected(error, model)}")


def _expected(error: ErrorDetails, model: Any) -> str:
    kind, message = error["type"], error["msg"]
    if kind == "literal_error":
        valid = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
        return f"{' or '.join(valid)}{nearest(error['input'], valid)}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"a mapping{_keys(model)}"
    if kind == "too_short":
        return "at least one entry"
    if kind != EXPECTED:
        message = message.removeprefix("Value error, ").removeprefix("Input should be ")
        message = message[:1].lower() + message[1:]
    return message


def _keys(model: Any) -> str:
    if not _is_section(model):
        return " of names to blocks"
    return " with the keys " + ", ".join(_names(model))


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _field(model: type[BaseModel], name: str | int) -> FieldInfo:
    return next(field for key, field in model.model_fields.items() if name in (key, field.alias))


def _unknown(name: str, model: type[BaseModel]) -> str:
    valid = _names(model)
    hint = nearest(name, valid)
    if not hint:
        # a right key in the wrong block is a common slip
        home = [
            block
            for block, field in Configuration.model_fields.items()
            if _is_section(field.annotation) and name in _names(field.annotation)
        ]
        hint = f" (it belongs in the block {' or '.join(home)})" if home else ""
    return f"found an unknown key, expected one of {', '.join(valid)}{hint}"
