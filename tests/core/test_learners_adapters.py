import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.adapters import EconMLResponse, ScikitLearnResponse
from coarse_spark.core.learners.response import observed_space
from coarse_spark.simulate.field import field_simulation


def fitted(adapter, n=4000):
    sample, new = field_simulation(n, 1, seed=0), field_simulation(1000, 1, seed=1)
    basis = Basis("quadratic", observed_space(sample.T))
    theta = adapter(basis).fit(sample.X, sample.T, sample.y).predict(new.X)
    assert theta.shape == new.theta.shape
    grid = basis(np.linspace(0, 2, 9)[:, None])
    lift = (theta - new.theta) @ (grid - grid[0]).T
    return np.sqrt((lift**2).mean()), np.std(new.theta @ (grid - grid[0]).T, axis=0).max()


def test_any_scikit_learn_regressor_learns_responses():
    error, spread = fitted(
        lambda basis: ScikitLearnResponse(LinearRegression(), basis, multioutput=True)
    )
    assert error < 0.5 * spread


def test_econml_estimators_learn_responses():
    dml = pytest.importorskip("econml.dml")
    error, spread = fitted(
        lambda basis: EconMLResponse(
            dml.LinearDML(model_y=LinearRegression(), model_t=LinearRegression(), cv=2), basis
        )
    )
    assert error < 0.6 * spread
