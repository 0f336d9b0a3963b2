"""Checks of the blocks experiment, population and output: places of tables, roles of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coarse_spark.address import is_path, local_path, on_volume, overlap
from coarse_spark.config.checks.problem import NAMES, VALUES, Check, Key, Problem, Values
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
    sources = {f"{name}.path": values.get(f"{name}.path") for name in ("experiment", "population")}
    for name in ("responses.experiment", "responses.population"):
        place = values.get(name)
        sources[name] = place if place is not None and is_path(place) else None
    for key in ("path", "page"):
        output = values.get(f"output.{key}")
        for name, source in sources.items():
            if output is not None and source is not None and overlap(output, source):
                yield Problem(
                    ("output", key),
                    f"found {redact(output)}, which is, holds or lies in {name}, expected a "
                    "folder apart from the inputs",
                )


def _no_tables_on_a_volume(path: str | None) -> Iterator[Problem]:
    if path is not None and on_volume(path):
        yield Problem(
            ("output", "path"),
            f"found {path}; a table may not be defined on a folder of a Volume, expected "
            "catalog.schema in its place: output.catalog and output.schema (output.page may be on "
            "a Volume)",
        )


def _page(page: str | None) -> Iterator[Problem]:
    if page is not None and local_path(page) is None:
        yield Problem(
            ("output", "page"),
            f"found {redact(page)}, which programs of this machine cannot write, expected a local "
            "folder, /Volumes/catalog/schema/volume/… or dbfs:/…",
        )


def _columns(values: Values) -> Iterator[tuple[str, Key, str]]:
    """Yield role, key and name of every column of the block experiment."""
    for role in _ROLES:
        found = values.get(f"experiment.{role}") or ()
        if isinstance(found, str):
            yield role, ("experiment", role), found
        else:
            yield from ((role, ("experiment", role, i), name) for i, name in enumerate(found))


def unit_columns(values: Values) -> dict[str, str]:
    """Return the columns of units that a configuration names, with the key that names each."""
    weight = values.get("population.weight")
    named = [
        *((name, f"experiment.{role}") for role, _, name in _columns(values)),
        *([] if weight is None else [(weight, "population.weight")]),
        *((name, "menu.eligibility") for name in values.get("menu.eligibility") or ()),
        *((name, "profit.unit_columns") for name in values.get("profit.unit_columns") or ()),
    ]
    return dict(reversed(named))


def _profit_columns(values: Values) -> Iterator[tuple[Key, str]]:
    for position, name in enumerate(values.get("profit.unit_columns", ())):
        yield ("profit", "unit_columns", position), name


def _twins(values: Values, treatments: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for every column that Spark does not tell from another one."""
    first: dict[str, str] = {}
    named = [
        *((("treatments", name), name) for name in treatments),
        *((key, name) for _, key, name in _columns(values)),
        *((("menu", "eligibility", name), name) for name in values.get("menu.eligibility", {})),
        *_profit_columns(values),
    ]
    for key, name in named:
        other = first.setdefault(name.lower(), name)
        if name != other:
            yield Problem(
                key,
                f"found '{name}' beside '{other}', which Spark takes for the same column, expected "
                "one spelling or another column",
            )


def _column_roles(values: Values, treatments: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for every column with two roles that exclude each other."""
    taken: dict[str, str] = dict.fromkeys(treatments, "a treatment")
    unit_id = values.get("experiment.unit_id")
    parts = set() if isinstance(unit_id, str) else set(unit_id or ())
    for role, key, column in _columns(values):
        # a part of an id, such as the market, may also describe a unit
        if column in taken and not (role in _DESCRIPTIVE and column in parts):
            yield Problem(
                key, f"found '{column}', which is {taken[column]} already, expected another column"
            )
        # a column may describe a unit, cut partitions, be a stratum and a rule of eligibility at
        # once
        elif role not in _DESCRIPTIVE:
            taken[column] = f"experiment.{role}"
    for key, column in _profit_columns(values):
        # a weight may well be a number that costs depend on
        if taken.get(column, "experiment.weight") != "experiment.weight":
            yield Problem(
                key, f"found '{column}', which is {taken[column]} already, expected another column"
            )
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
        if name.lower() in WRITTEN_COLUMNS:
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


def _id_parts(unit_id: str | tuple[str, ...]) -> Iterator[Problem]:
    """Yield a problem for every part of an id that cannot be a column of table `assignments`."""
    if isinstance(unit_id, str):
        return
    for position, name in enumerate(unit_id):
        key = ("experiment", "unit_id", position)
        if name.lower() in ASSIGNMENT_COLUMNS:
            yield Problem(
                key,
                f"found '{name}', which is a column of its own in the table assignments, expected "
                "another name for this part of the id; rename the column in the tables, for "
                f"instance to id_{name.lower()}",
            )
        elif set(name) & _REFUSED:
            yield Problem(key, f"found the column '{name}', {_PLAIN_NAME}")


CHECKS: tuple[Check, ...] = (
    (("experiment.table", "experiment.path", "experiment.bundled"), _one_source),
    (("population.table", "population.path"), _one_population),
    (("output.path", "output.catalog", "output.schema"), _one_output),
    ((VALUES,), _places),
    (("output.path",), _no_tables_on_a_volume),
    (("output.page",), _page),
    ((VALUES, NAMES), _twins),
    ((VALUES, NAMES), _column_roles),
    ((NAMES,), _written_names),
    (("experiment.unit_id",), _id_parts),
)
