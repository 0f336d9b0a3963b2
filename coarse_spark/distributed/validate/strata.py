"""Strata of a stratified experiment that cannot show an effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.distributed.frames import column
from coarse_spark.text import shown_parts

_EXAMPLES = 3


def strata_without_variation(
    usable_rows: DataFrame, strata: Sequence[str], treatments: Sequence[str], *, private: bool
) -> Iterator[str]:
    """Yield a sentence for every treatment that some strata have a single value of.

    They do not identify its effect.

    Parameters
    ----------
    usable_rows : experiment rows with outcome and treatment.
    strata : names of their columns.
    treatments : names of their columns.
    private : show hashes of values.
    """
    keys = [
        column(name).cast("string").alias(f"s{position}") for position, name in enumerate(strata)
    ]
    fixed = [
        (F.min(column(name)) == F.max(column(name))).alias(f"fixed{position}")
        for position, name in enumerate(treatments)
    ]
    # a null is no stratum
    sizes = usable_rows.groupBy(*keys).agg(F.count(F.lit(1)).alias("n"), *fixed).dropna()
    for position, treatment in enumerate(treatments):
        single = sizes.where(F.col(f"fixed{position}"))
        count, rows = single.agg(F.count(F.lit(1)), F.sum("n")).collect()[0]
        if count:
            largest = single.orderBy(
                F.desc("n"), *(f"s{number}" for number in range(len(strata)))
            ).head(_EXAMPLES)
            found = f"{count} {'stratum has' if count == 1 else 'strata have'}"
            named = (
                f"{shown_parts(strata, row[: len(strata)], private=private)} ({row['n']} rows)"
                for row in largest
            )
            more = ", ..." if count > _EXAMPLES else ""
            yield (
                f"{found} a single value of treatment '{treatment}' in {rows} usable rows, "
                f"expected at least two to learn its effect from: {', '.join(named)}{more}; "
                "merge strata, or leave these rows out"
            )
