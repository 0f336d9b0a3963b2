"""The block treatments: dimensions by name, or a finite list; and the space that either declares.

This is the one place that builds the space of a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo

from coarse_spark.address import is_local, local_path, resolved
from coarse_spark.config.fields import Level, Number, expected
from coarse_spark.config.section import Section
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError
from coarse_spark.text import redact

_ROWS = (
    "a CSV or Parquet file beside the configuration, such as offers.csv, or a list of treatments "
    "such as [{price: 9.9, gift: none}, {price: 8.9, gift: mug}]"
)


class ContinuousTreatment(Section):
    """A treatment dimension that takes any value, or any step, between two bounds."""

    kind: Literal["continuous"] = Field(description="continuous: a number between two bounds")
    lower: Number = Field(description="smallest value that may be offered")
    upper: Number = Field(description="largest value that may be offered")
    control: Number = Field(
        description="value of a unit that is left alone; may lie outside the bounds"
    )
    step: Number | None = Field(
        None, description="offer only lower, lower + step, ...; default: any value"
    )


class ListedTreatment(Section):
    """A numeric treatment dimension of which only some values may be offered."""

    kind: Literal["continuous"] = Field(description="continuous: a number, here one of values")
    values: tuple[Number, ...] = Field(
        description="the only values that may be offered, instead of bounds and step"
    )
    control: Number = Field(
        description="value of a unit that is left alone; need not be one of values"
    )


class CategoricalTreatment(Section):
    """A treatment dimension of named levels."""

    kind: Literal["categorical"] = Field(description="categorical: one of a list of levels")
    levels: tuple[Level, ...] = Field(
        description="the levels that may be offered, as they are written in the table"
    )
    control: Level = Field(description="the level of a unit that is left alone")


def _row(value: Any) -> dict[str, Any]:
    known = isinstance(value, Mapping) and all(
        isinstance(entry, bool | int | float | str) and entry == entry for entry in value.values()
    )
    if not known or not value:
        raise expected("a mapping of treatment columns to values, such as {price: 9.9, gift: none}")
    return {str(name): entry for name, entry in value.items()}


def _rows(value: Any, info: ValidationInfo) -> tuple[dict[str, Any], ...]:
    rows = _read(value, info.data.get("control", {})) if isinstance(value, str) else value
    if not isinstance(rows, Sequence) or not rows:
        raise expected(_ROWS)
    listed = [_row(row) for row in rows]
    names = list(listed[0])
    for number, row in enumerate(listed, start=1):
        if set(row) != set(names):
            raise expected(
                f"the same columns in every row: row {number} names {', '.join(row)}, "
                f"row 1 {', '.join(names)}"
            )
    return tuple({name: row[name] for name in names} for row in listed)


def _read(text: str, control: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a file of candidates."""
    try:
        place = resolved(text)
    except InvalidInputError as error:
        raise expected(f"{_ROWS}; {error}") from None
    local = local_path(place)
    if local is None:
        raise expected(f"{_ROWS}; programs of this machine cannot read {redact(place)}")
    path = Path(local)
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise expected(f"{_ROWS}; the file's name has to end in .csv or .parquet")
    try:
        frame = pd.read_parquet(path) if kind == ".parquet" else _read_csv(path, control)
    except (OSError, ValueError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else error
        raise expected(f"a file that can be read: {reason}") from None
    for name in frame.columns:
        if frame[name].isna().any():
            rows = ", ".join(map(str, frame.index[frame[name].isna()][:5] + 1))
            raise expected(f"a value in every field, found none in column '{name}' of row {rows}")
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _read_csv(path: Path, control: Mapping[str, Any]) -> pd.DataFrame:
    names = {name: str(name).strip() for name in pd.read_csv(path, nrows=0).columns}
    # a column whose control is a text, such as "none", has texts, even where they look like numbers
    texts = {name: str for name, plain in names.items() if isinstance(control.get(plain), str)}
    # only an empty field is missing: "none" and "NA" may be levels
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=texts)
    return frame.rename(columns=names)


class CandidateList(Section):
    """A finite list of treatments."""

    # before candidates, whose file is read with a view to it
    control: Annotated[dict[str, Level], BeforeValidator(_row)] = Field(
        description="the treatment of a unit that is left alone, a value for every column"
    )
    candidates: Annotated[tuple[dict[str, Level], ...], BeforeValidator(_rows)] = Field(
        description="the treatments that may be offered, the control aside: a CSV or Parquet file "
        "beside the configuration, or a list; one row a treatment, one column a dimension, named "
        "as in the experiment"
    )


def _kind(value: Any) -> Any:
    """Return which model reads a dimension."""
    if isinstance(value, Section):
        value = dict(value)
    if not isinstance(value, Mapping):
        return "continuous"  # whose report says that a mapping is expected
    kind = value.get("kind")
    return "values" if kind == "continuous" and "values" in value else kind


def _form(value: Any) -> str:
    """Return which model reads the block: a dimension may be called candidates too."""
    if isinstance(value, Mapping):
        dimension = isinstance(value.get("candidates", {}), Mapping | Section)
        return "dimensions" if dimension else "candidates"
    return "candidates" if isinstance(value, CandidateList) else "dimensions"


Treatment = Annotated[
    Annotated[ContinuousTreatment, Tag("continuous")]
    | Annotated[ListedTreatment, Tag("values")]
    | Annotated[CategoricalTreatment, Tag("categorical")],
    Discriminator(_kind),
]
Treatments = Annotated[
    Annotated[dict[str, Treatment], Field(min_length=1), Tag("dimensions")]
    | Annotated[CandidateList, Tag("candidates")],
    Discriminator(_form),
]
# by the tag that stands for it in the report of problems
DIMENSIONS: dict[Any, type[Section]] = {
    "continuous": ContinuousTreatment,
    "values": ListedTreatment,
    "categorical": CategoricalTreatment,
}


def treatment_names(treatments: Any) -> tuple[str, ...]:
    """Return the names of all treatments that the block names, valid or not."""
    if _form(treatments) == "candidates":
        named = treatments if isinstance(treatments, Mapping) else dict(treatments)
        treatments = named.get("control")
    return tuple(map(str, treatments)) if isinstance(treatments, Mapping) else ()


def build_space(
    treatments: Mapping[str, Section] | CandidateList, exclude: str | None = None
) -> TreatmentSpace:
    """Return the space that the block declares.

    Parameters
    ----------
    treatments : the block, each of its fields valid.
    exclude : expression in the treatment names; where it is not 0 nothing is offered.

    Raises
    ------
    InvalidInputError : fields that do not fit together.
    """
    if isinstance(treatments, CandidateList):
        rows = pd.DataFrame(list(treatments.candidates))
        return TreatmentSpace.from_candidates(rows, treatments.control, exclude)
    entries = {name: treatment.model_dump() for name, treatment in treatments.items()}
    return TreatmentSpace.from_dict(entries, exclude)


def beside(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values of a file with the place of a file of candidates beside it spelled out."""
    treatments: Any = content.get("treatments")
    if _form(treatments) != "candidates" or not isinstance(treatments["candidates"], str):
        return content
    place = treatments["candidates"]
    if is_local(place) and not place.startswith("~"):
        place = str(folder / place)
    return {**content, "treatments": {**treatments, "candidates": place}}
