import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.response import ResponseLearner
from coarse_spark.core.learners.shape import project, shape_constraints
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

PRICE = TreatmentSpace.from_dict(
    {"price": {"kind": "continuous", "lower": 80, "upper": 100, "control": 100}}
)
TWO = TreatmentSpace.from_dict(
    {n: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for n in ("a", "b")}
)


def prepared(name, space, seed=0):
    rng = np.random.default_rng(seed)
    T = rng.uniform(space.bounds[:, 0], space.bounds[:, 1], (500, len(space.dimensions)))
    T[:50] = space.control
    basis = Basis(name, space)
    return basis, Whitening.fit(basis, T, np.ones(500))


@pytest.mark.parametrize("name", ["quadratic", "cubic", "spline", "any+quadratic", "any+log1p"])
@pytest.mark.parametrize("shape", ["decreasing", "concave", "decreasing concave", "increasing"])
def test_projected_responses_have_the_shape(name, shape):
    basis, whitening = prepared(name, PRICE)
    constraints = shape_constraints({"price": shape}, basis, whitening)
    theta = np.random.default_rng(1).normal(size=(200, basis.size))
    raw = whitening.raw(project(theta, constraints))
    inner = np.linspace(80, 99.9, 120)  # a jump at the control is not curvature
    response = raw @ basis(inner[:, None]).T
    size = np.ptp(response, axis=1).max()
    if "decreasing" in shape:
        full = raw @ basis(np.linspace(80, 100, 120)[:, None]).T
        assert np.diff(full, axis=1).max() < 2e-3 * size
    if "increasing" in shape:
        assert np.diff(response, axis=1).min() > -2e-3 * size
    if "concave" in shape:
        assert np.diff(response, n=2, axis=1).max() < 1e-4 * size


def test_the_projection_is_the_nearest_point():
    basis, whitening = prepared("quadratic", TWO)
    constraints = shape_constraints(
        {"a": "increasing concave", "b": "decreasing"}, basis, whitening
    )
    theta = np.random.default_rng(2).normal(size=(6, basis.size))
    projected = project(theta, constraints)
    assert (projected @ constraints.T).min() > -1e-6
    for start, found in zip(theta, projected, strict=True):
        best = minimize(
            lambda b, start=start: ((b - start) ** 2).sum(),
            np.zeros(basis.size),
            jac=lambda b, start=start: 2 * (b - start),
            constraints={
                "type": "ineq",
                "fun": lambda b: constraints @ b,
                "jac": lambda _: constraints,
            },
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(found, best.x, atol=1e-4)


def test_coefficients_of_the_shape_are_left_alone():
    basis, whitening = prepared("quadratic", PRICE)
    constraints = shape_constraints({"price": "concave"}, basis, whitening)
    assert len(constraints) == 1
    theta = np.random.default_rng(3).normal(size=(50, 3))
    theta[:, 2] = -np.abs(theta[:, 2])
    np.testing.assert_array_equal(project(theta, constraints), theta)


def test_a_learner_with_a_shape_predicts_it_after_a_table_row():
    rng = np.random.default_rng(4)
    X, T = pd.DataFrame({"x": rng.normal(size=800)}), rng.uniform(80, 100, (800, 1))
    y = -0.02 * T[:, 0] + rng.normal(size=800)
    free = ResponseLearner(space=PRICE, learner="sieve").fit(X, T, y).predict(X)
    learner = ResponseLearner(
        space=PRICE, learner="sieve", shape={"price": "decreasing concave"}
    ).fit(X, T, y)
    shaped = load_model(learner.record_).predict(X)
    assert (shaped[:, 2] <= 1e-9).all()
    slope_at_80 = shaped[:, 1] + 160 * shaped[:, 2]
    assert slope_at_80.max() < 1e-4  # the first slope is taken over a ten-thousandth of the range
    middle = learner.basis_(np.array([[T.mean()]]))[0]
    assert np.abs((shaped - free) @ middle).max() < 0.1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"prise": "concave"}, "'prise' \\(did you mean 'price'"),
        ({"price": "concav"}, "'concav' \\(did you mean 'concave'"),
    ],
)
def test_bad_shapes_are_explained(shape, message):
    basis, whitening = prepared("quadratic", PRICE)
    with pytest.raises(InvalidInputError, match=message):
        shape_constraints(shape, basis, whitening)
