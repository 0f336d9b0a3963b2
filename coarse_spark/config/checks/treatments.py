"""The treatment space that many checks need, or what keeps it from being built."""

from __future__ import annotations

from coarse_spark.config.checks.problem import Problem, Values
from coarse_spark.config.treatments import CandidateList, build_space, treatment_names
from coarse_spark.core.expressions import Expression
from coarse_spark.core.treatments import TreatmentSpace, nameable
from coarse_spark.errors import InvalidInputError


def treatment_space(values: Values) -> TreatmentSpace | list[Problem]:
    """Return the treatment space, or the problems that keep it from being built."""
    if "treatments" not in values:
        return []
    treatments, exclude = values["treatments"], values.get("menu.exclude")
    if not all(map(nameable, treatment_names(treatments))):
        return []  # a check of its own reports it
    if isinstance(treatments, CandidateList):
        try:
            build_space(treatments)
        except InvalidInputError as error:
            place = "control" if str(error).startswith("control ") else "candidates"
            return [Problem(("treatments", place), str(error))]
    else:
        problems = []
        for name, entry in treatments.items():
            try:
                build_space({name: entry})
            except InvalidInputError as error:
                message = str(error).removeprefix(f"treatment '{name}': ")
                field = message.split()[0]  # core's messages begin with the field they are about
                known = field in type(entry).model_fields
                key = ("treatments", name, field) if known else ("treatments", name)
                problems.append(Problem(key, message))
        if problems:
            return problems
    if exclude is not None and not Expression(exclude).names <= set(treatment_names(treatments)):
        return []  # a check of its own reports it
    try:
        space = build_space(treatments, exclude)
        len(space.candidates)
    except InvalidInputError as error:
        return [
            Problem(
                ("treatments",) if exclude is None or "grid" in str(error) else ("menu", "exclude"),
                str(error),
            )
        ]
    return space
