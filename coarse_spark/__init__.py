"""Coarse personalization on Spark: which few treatments to offer, and who gets which."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from coarse_spark.core.honest import honest_values as honest_values
    from coarse_spark.core.learners.response import ResponseLearner as ResponseLearner
    from coarse_spark.core.menu.choose import choose_menu as choose_menu
    from coarse_spark.core.profit import Profit as Profit
    from coarse_spark.core.treatments import TreatmentSpace as TreatmentSpace

_PUBLIC = {
    "TreatmentSpace": "coarse_spark.core.treatments",
    "Profit": "coarse_spark.core.profit",
    "choose_menu": "coarse_spark.core.menu.choose",
    "ResponseLearner": "coarse_spark.core.learners.response",
    "honest_values": "coarse_spark.core.honest",
}
__all__ = [
    "Profit",
    "ResponseLearner",
    "TreatmentSpace",
    "__version__",
    "choose_menu",
    "honest_values",
]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that ``import coarse_spark`` stays light."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'coarse_spark' has no attribute '{name}'")
