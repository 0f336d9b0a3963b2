"""A fitted model as plain values: a row of the models table. Reading one executes no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.errors import InvalidInputError

# 2 added pooled_encoder and pooled_coefficients, 3 the baseline of relative responses, 4 bent
# features, 5 the means of residualized treatments, 6 the scale of a baseline; rows of earlier
# versions are read as before
FORMAT_VERSION = 6


@dataclass(frozen=True)
class ModelRecord:
    """A fitted model.

    Parameters
    ----------
    learner : name of the learner that was chosen.
    format_version : version of the meaning of ``specification`` and ``arrays``.
    specification : JSON text: feature encoding, basis, names, settings.
    arrays : named float arrays of any shape.
    diagnostics : named numbers of the fit (rows, penalties, R-losses).
    warnings : sentences for the status row.
    """

    learner: str
    specification: str
    arrays: Mapping[str, FloatArray]
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    format_version: int = FORMAT_VERSION

    @cached_property
    def content(self) -> dict[str, Any]:
        """The parsed specification."""
        parsed: dict[str, Any] = json.loads(self.specification)
        return parsed

    def to_row(self) -> dict[str, Any]:
        """Return plain Python values: arrays as flat lists beside their shapes."""
        return {
            "learner": self.learner,
            "format_version": self.format_version,
            "specification": self.specification,
            "arrays": {
                name: np.asarray(a, dtype=np.float64).ravel().tolist()
                for name, a in self.arrays.items()
            },
            "shapes": {name: list(np.shape(a)) for name, a in self.arrays.items()},
            "diagnostics": {name: float(value) for name, value in self.diagnostics.items()},
            "warnings": list(self.warnings),
        }

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> ModelRecord:
        """Return the record of a row; further columns are ignored.

        Raises
        ------
        InvalidInputError : written by a newer version of the package.
        """
        version = int(row["format_version"])
        if version > FORMAT_VERSION:
            raise InvalidInputError(
                f"model row has format version {version}, this version of coarse_spark reads up to "
                f"{FORMAT_VERSION}"
            )
        arrays, shapes = dict(row["arrays"]), dict(row["shapes"])
        return ModelRecord(
            learner=str(row["learner"]),
            specification=str(row["specification"]),
            arrays={
                name: np.asarray(a, dtype=np.float64).reshape([int(k) for k in shapes[name]])
                for name, a in arrays.items()
            },
            diagnostics={
                name: float(value) for name, value in dict(row.get("diagnostics") or {}).items()
            },
            warnings=tuple(row["warnings"] if row.get("warnings") is not None else ()),
            format_version=version,
        )
