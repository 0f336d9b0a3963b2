"""The treatment space that many checks need, or what keeps it from being built."""

from __future__ import annotations

from coarse_spark.config.checks.problem import Problem, Values
from coarse_spark.core.expressions import Expression
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError


def treatment_space(values: Values) -> TreatmentSpace | list[Problem]:
    """Return the treatment space, or the problems that keep it from being built."""
    if "treatments" not in values:
        return []
    entries = {name: treatment.model_dump() for name, treatment in values["treatments"].items()}
    problems = []
    for name, entry in entries.items():
        try:
            TreatmentSpace.from_dict({name: entry})
        except InvalidInputError as error:
            message = str(error).removeprefix(f"treatment '{name}': ")
            field = message.split()[0]  # core's messages begin with the field they are about
            problems.append(
                Problem(
                    ("treatments", name, field) if field in entry else ("treatments", name), message
                )
            )
    if problems:
        return problems
    exclude = values.get("menu.exclude")
    if exclude is not None and not Expression(exclude).names <= set(entries):
        return []  # a check of its own reports it
    try:
        space = TreatmentSpace.from_dict(entries, exclude)
        len(space.candidates)
    except InvalidInputError as error:
        return [
            Problem(
                ("treatments",) if exclude is None or "grid" in str(error) else ("menu", "exclude"),
                str(error),
            )
        ]
    return space
