"""Checks of the blocks experiment, population and output: places of tables, roles of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coarse_spark.address import overlap
from coarse_spark.config.checks.problem import NAMES, VALUES, Check, Problem, Values
from coarse_spark.text import redact

# characters that a column of a Delta table cannot have
_REFUSED = frozenset(" ,;{}()\n\t=")
_PLAIN_NAME = "expected one without spaces and , ; { } ( ) =, which Delta tables refuse"

# roles of columns of the experiment; the latter describe a unit
_DESCRIPTIVE = ("features", "partition_by", "strata", "cluster")
_ROLES = ("unit_id", "outcome", "weight", *_DESCRIPTIVE)

# columns of the table `assignments` beside those of the treatments and of a composite unit_id
ASSIGNMENT_COLUMNS = frozenset(
    {
        "run_id",
        "unit_id",
        "treatment_id",
        "expected_profit",
        "expected_incremental_profit",
        "regret",
        "runner_up_treatment_id",
        "changed",
    }
)
# and of `menu` too
WRITTEN_COLUMNS = ASSIGNMENT_COLUMNS | {
    "k",
    "share",
    "shadow_price",
    "extrapolates",
    "untried",
    "selected",
}


def _one_source(table: str | None, path: str | None, bundled: str | None) -> Iterator[Problem]:
    found = [
        name
        for name, value in (("table", table), ("path", path), ("bundled", bundled))
        if value is not None
    ]
    if len(found) != 1:
        yield Problem(
            ("experiment",),
            f"found {' and '.join(found) or 'no source'}, expected exactly one of table, "
            "path, bundled",
        )


def _one_population(table: str | None, path: str | None) -> Iterator[Problem]:
    if table is not None and path is not None:
        yield Problem(
            ("population",),
            "found table and path, expected one of them, or neither for the experiment's units",
        )


def _one_output(path: str | None, catalog: str | None, schema: str | None) -> Iterator[Problem]:
    if path is not None and (catalog is not None or schema is not None):
        yield Problem(("output",), "found a path and a catalog schema, expected one of them")
    elif catalog is not None and schema is None:
        yield Problem(
            ("output", "catalog"),
            f"found the catalog {catalog} without a schema, expected output.schema beside it",
        )
    elif path is None and schema is None:
        yield Problem(
            ("output",),
            "found no place for the tables, expected exactly one of path, schema (with or "
            "without catalog)",
        )


def _places(values: Values) -> Iterator[Problem]:
    """Yield a problem for an output that is, holds or lies in an input.

    VACUUM of the one deletes what belongs to the other, and a run reads what it writes.
    """
    output = values.get("output.path")
    for name in ("experiment", "population"):
        source = values.get(f"{name}.path")
        if output is not None and source is not None and overlap(output, source):
            yield Problem(
                ("output", "path"),
                f"found {redact(output)}, which is, holds or lies in {name}.path, expected a "
                "folder apart from the inputs",
            )


def unit_columns(values: Values) -> dict[str, str]:
    """Return the columns of units that a configuration names, with the key that names each."""
    roles = [*(f"experiment.{role}" for role in _ROLES), "population.weight", "menu.eligibility"]
    named = {role: values.get(role) or () for role in roles}
    return {
        column: role
        for role, columns in reversed(named.items())
        for column in ((columns,) if isinstance(columns, str) else columns)
    }


def _column_roles(values: Values, treatments: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for every column with two roles that exclude each other."""
    taken: dict[str, str] = dict.fromkeys(treatments, "a treatment")
    unit_id = values.get("experiment.unit_id")
    parts = set() if isinstance(unit_id, str) else set(unit_id or ())
    for role in _ROLES:
        found = values.get(f"experiment.{role}") or ()
        columns = (found,) if isinstance(found, str) else found
        for position, column in enumerate(columns):
            # a part of an id, such as the market, may also describe a unit
            if column in taken and not (role in _DESCRIPTIVE and column in parts):
                key = (
                    ("experiment", role)
                    if isinstance(found, str)
                    else ("experiment", role, position)
                )
                yield Problem(
                    key,
                    f"found '{column}', which is {taken[column]} already, expected another column",
                )
        # a column may describe a unit, cut partitions, be a stratum and a rule of eligibility at
        # once
        if role not in _DESCRIPTIVE:
            taken |= {column: f"experiment.{role}" for column in columns if column not in taken}
    for column in values.get("menu.eligibility", {}):
        key = ("menu", "eligibility", column)
        if column in taken:
            yield Problem(
                key, f"found '{column}', which is {taken[column]} already, expected another column"
            )
        elif set(column) & _REFUSED:
            yield Problem(key, f"found the column '{column}', {_PLAIN_NAME}")


def _written_names(treatments: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for every name that cannot be a column of the tables that a run writes."""
    for name in treatments:
        if name.casefold() in WRITTEN_COLUMNS:
            message = (
                f"'{name}' is a column of its own in the tables that a run writes, expected "
                "another name"
            )
            yield Problem(
                ("treatments", name),
                f"{message}; rename the column of the experiment, for instance to offered_{name}",
            )
        elif not name.strip() or set(name) & _REFUSED:
            yield Problem(("treatments", name), f"found the name '{name}', {_PLAIN_NAME}")


def _id_parts(unit_id: str | tuple[str, ...], treatments: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for every part of an id that cannot be a column of table `assignments`."""
    if isinstance(unit_id, str):
        return
    taken = {
        **{name.casefold(): "a treatment" for name in treatments},
        **dict.fromkeys(ASSIGNMENT_COLUMNS, "a column of its own in the table assignments"),
    }
    for position, name in enumerate(unit_id):
        key, folded = ("experiment", "unit_id", position), name.casefold()
        # _column_roles tells of a treatment's very name
        if folded in taken and name not in treatments:
            yield Problem(
                key,
                f"found '{name}', which is {taken[folded]}, expected another name for this part of "
                f"the id; rename the column in the tables, for instance to id_{folded}",
            )
        elif set(name) & _REFUSED:
            yield Problem(key, f"found the column '{name}', {_PLAIN_NAME}")
        taken.setdefault(folded, "another part but for its capitals")


CHECKS: tuple[Check, ...] = (
    (("experiment.table", "experiment.path", "experiment.bundled"), _one_source),
    (("population.table", "population.path"), _one_population),
    (("output.path", "output.catalog", "output.schema"), _one_output),
    ((VALUES,), _places),
    ((VALUES, NAMES), _column_roles),
    ((NAMES,), _written_names),
    (("experiment.unit_id", NAMES), _id_parts),
)
