"""The rights that readers of published results need, as SQL for whoever may give them."""

from __future__ import annotations

from coarse_spark.config.models import Output
from coarse_spark.errors import InvalidInputError
from coarse_spark.lake.contract import (
    ASSIGNMENTS,
    CONTRASTS,
    CURRENT_ASSIGNMENTS,
    FRONTIER,
    MENU,
    POLICY_VALUES,
    RUNS,
    SEGMENTS,
    TABLES,
)

# what consumers read; models and responses serve the program, and tell more about units
_RESULTS = (RUNS, MENU, ASSIGNMENTS, POLICY_VALUES, CONTRASTS, SEGMENTS)


def grants(
    output: Output, principal: str, *, frontier: bool = False, everything: bool = False
) -> list[str]:
    """Return the statements that let a principal read the published results, one a line.

    For an output in a folder there are none: the only line says where rights are given instead.

    Parameters
    ----------
    output : where the tables are.
    principal : a user, group or service principal, as the catalog names it.
    frontier : also the table of frontiers, which is there when one was asked for.
    everything : also the tables that serve the program: models and responses.

    Raises
    ------
    InvalidInputError : the principal is empty or holds control characters.
    """
    reader = _principal(principal)
    if output.schema_name is None:
        return [
            "The output is a folder, which knows no GRANT: whoever may read its files in the "
            "storage may read the tables."
        ]
    schema = ".".join(_quoted(part) for part in (output.catalog, output.schema_name) if part)
    tables = [*TABLES] if everything else [table.name for table in _RESULTS]
    tables += [FRONTIER.name] if frontier else []
    rights = [
        f"SELECT ON VIEW {schema}.{_quoted(CURRENT_ASSIGNMENTS)}",
        *(f"SELECT ON TABLE {schema}.{_quoted(table)}" for table in tables),
    ]
    if output.catalog is not None:
        catalog = [f"GRANT USE CATALOG ON CATALOG {_quoted(output.catalog)} TO {reader};"]
    else:
        catalog = ["-- output.catalog is not given: in its catalog, USE CATALOG is needed besides"]
    return [
        *catalog,
        f"GRANT USE SCHEMA ON SCHEMA {schema} TO {reader};",
        *(f"GRANT {right} TO {reader};" for right in rights),
    ]


def _principal(name: str) -> str:
    if not name.strip() or not name.isprintable():
        raise InvalidInputError(
            f"principal {name!a}: expected the name of a user, group or service principal, "
            "without control characters"
        )
    return _quoted(name)


def _quoted(name: str) -> str:
    """Return one name in backticks; unlike in a dotted identifier, its dots are its own."""
    return "`" + name.replace("`", "``") + "`"
