"""Names of the arrays that every signature speaks of, and arrays of what users hand over."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

LARGEST = 1e30  # number of a user: sums over a population stay within single precision


def numbers(
    values: npt.ArrayLike | pd.DataFrame | pd.Series[Any], what: str, largest: float = LARGEST
) -> FloatArray:
    """Return numbers of any type as floats, NaN where they are missing.

    Parameters
    ----------
    values : an array, or what pandas has: nullable, categorical or decimal numbers, booleans.
    what : they are, for messages, such as ``weights``.
    largest : that is taken.

    Raises
    ------
    InvalidInputError : texts, dates, complex numbers, lists of different lengths, or finite numbers
        beyond the largest, either way.

    Examples
    --------
    >>> numbers(pd.Series([1, None, 3], dtype="Int64"), "weights")
    array([ 1., nan,  3.])
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise InvalidInputError(
            f"{what}: found lists of different lengths, expected an array"
        ) from None
    if array.dtype.kind == "O":
        array = np.where(pd.isna(array), np.nan, array)
        odd = [
            one
            for one in array.flat
            if not isinstance(
                one, int | float | Decimal | Fraction | np.integer | np.floating | np.bool_
            )
        ][:1]
    else:
        odd = [] if array.dtype.kind in "biuf" else array.ravel()[:1].tolist() or [array.dtype]
    if odd:
        raise InvalidInputError(f"{what}: found {odd[0]!r}, expected real numbers")
    try:
        result = array.astype(np.float64, copy=False)
    except OverflowError:
        raise InvalidInputError(
            f"{what}: found a number beyond 1e308, expected at most {largest:g}; use a larger unit"
        ) from None
    found = np.max(np.abs(result), initial=0.0, where=np.isfinite(result))
    if found > largest:
        raise InvalidInputError(
            f"{what}: found {found:g}, expected at most {largest:g}; use a larger unit"
        )
    return result


def number(value: Any, what: str) -> float:
    """Return one finite number; errors as in ``numbers``, and for more, less or a missing one."""
    found = numbers(value, what)
    if found.size != 1 or not np.isfinite(found).all():
        raise InvalidInputError(f"{what}: found {value!r}, expected one finite number")
    return float(found.reshape(-1)[0])


def relative(weights: FloatArray) -> FloatArray:
    """Return weights of which the largest is from 1 to 2: only their ratios count.

    They are divided by a power of two, which changes no digit.

    Examples
    --------
    >>> relative(np.array([3e300, 1e300, 0.0])).round(3)
    array([1.12 , 0.373, 0.   ])
    """
    largest = weights.max(initial=0.0)
    return np.ldexp(weights, 1 - np.frexp(largest)[1]) if largest > 0 else weights


def named(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return a frame whose columns have texts for names.

    Parameters
    ----------
    frame : columns of any names: texts, numbers, tuples of several levels.
    what : a column is, for messages, such as ``feature``.

    Raises
    ------
    InvalidInputError : two columns of one name.

    Examples
    --------
    >>> named(pd.DataFrame([[1, 2]]), "feature").columns.tolist()
    ['0', '1']
    """
    names = [str(name) for name in frame.columns]
    repeated = pd.Index(names).duplicated()
    if repeated.any():
        raise InvalidInputError(
            f"{what} '{names[repeated.argmax()]}' occurs twice, expected it once"
        )
    return frame if names == list(frame.columns) else frame.set_axis(names, axis=1)


def shortest(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return numbers in single precision as doubles of the same digits, others as they are."""
    narrow = isinstance(values.dtype, np.dtype) and values.dtype in (np.float32, np.float16)
    return values.astype(str).astype(np.float64) if narrow else values


def plain(value: Any) -> Any:
    """Return a value of numpy as Python's; single precision by its shortest digits.

    Examples
    --------
    >>> plain(np.float32(0.1)), plain(np.str_("a")), plain(3)
    (0.1, 'a', 3)
    """
    if isinstance(value, np.float32 | np.float16):
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value
