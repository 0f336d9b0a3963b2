from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.basis import Basis
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError
from coarse_spark.simulate.field import field_simulation
from coarse_spark.simulate.promotions import (
    BLOCK_ROWS,
    EXPERIMENT_COLUMNS,
    MARKETS,
    TRUTH_COLUMNS,
    UNIT_COLUMNS,
    simulate_promotions_block,
)

SPACE = TreatmentSpace.from_dict(
    {
        "depth": {"kind": "continuous", "lower": 0, "upper": 40, "control": 0},
        "days": {"kind": "continuous", "lower": 0, "upper": 28, "control": 0},
    }
)
BASIS = Basis("quadratic", SPACE)
PROFIT = Profit(margin="0.45 - depth/100", cost="where(depth + days > 0, 0.15, 0) + 0.01*days")


@pytest.fixture(scope="module")
def experiment() -> pd.DataFrame:
    return pd.concat(
        [simulate_promotions_block(block, 3, experiment=True) for block in range(10)],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def population() -> pd.DataFrame:
    return simulate_promotions_block(0, 3, experiment=False)


def theta_of(units: pd.DataFrame) -> np.ndarray:
    return units[list(TRUTH_COLUMNS[1:])].to_numpy()


def test_a_block_depends_on_nothing_but_seed_table_and_number(population: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(simulate_promotions_block(0, 3, experiment=False), population)
    pd.testing.assert_frame_equal(
        simulate_promotions_block(0, 3, 25, experiment=False), population.iloc[:25]
    )
    for other in (
        simulate_promotions_block(1, 3, experiment=False),
        simulate_promotions_block(0, 4, experiment=False),
        simulate_promotions_block(0, 3, experiment=True),
    ):
        assert not np.array_equal(other["past_spend"], population["past_spend"])


def test_unit_ids_are_unique_across_blocks_and_tables(experiment: pd.DataFrame) -> None:
    population = pd.concat(
        [simulate_promotions_block(block, 3, experiment=False) for block in range(10)]
    )
    ids = pd.concat([experiment["unit_id"], population["unit_id"]])
    assert ids.is_unique
    assert ids.dtype == np.int64


def test_columns_types_and_gaps(experiment: pd.DataFrame, population: pd.DataFrame) -> None:
    assert tuple(experiment.columns) == (*EXPERIMENT_COLUMNS, *TRUTH_COLUMNS[1:])
    assert tuple(population.columns) == (*UNIT_COLUMNS, *TRUTH_COLUMNS[1:])
    missing = experiment.isna().mean()
    assert set(missing[missing > 0].index) == {"age", "distance_km"}
    assert missing[["age", "distance_km"]].between(0.02, 0.03).all()


def test_markets_are_strongly_skewed(experiment: pd.DataFrame) -> None:
    share = experiment["market"].value_counts(normalize=True)
    assert set(share.index) == set(MARKETS)
    assert share["capital"] == pytest.approx(0.35, abs=0.01)
    assert share[["islands", "border"]].max() < 0.01


def test_treatments_are_randomized(experiment: pd.DataFrame) -> None:
    control = (experiment[["depth", "days"]] == 0).all(axis=1)
    assert control.mean() == pytest.approx(0.125, abs=0.005)
    treated = experiment[~control]
    assert treated["depth"].between(0, 40).all()
    assert treated["days"].between(0, 28).all()
    assert treated["depth"].mean() == pytest.approx(20, abs=0.2)
    assert treated["days"].mean() == pytest.approx(14, abs=0.15)
    features = treated[
        [
            "tenure_months",
            "age",
            "visits",
            "past_spend",
            "distance_km",
            "basket_size",
            "theta_0",
            "theta_1",
        ]
    ]
    for name in ("depth", "days"):
        assert features.corrwith(treated[name]).abs().max() < 4 / np.sqrt(len(treated))


def test_the_mean_of_spend_is_the_quadratic_of_the_truth(experiment: pd.DataFrame) -> None:
    treatments = experiment[["depth", "days"]].to_numpy()
    phi, spend = BASIS(treatments), experiment["spend"].to_numpy()
    residual = spend - (phi * theta_of(experiment)).sum(axis=1)
    # residuals orthogonal to everything that a learner could find: basis, basis times features,
    # third powers of the treatments
    age = experiment["age"].fillna(43).to_numpy()
    probes = [
        phi,
        phi * (experiment["market"] == "south").to_numpy()[:, None],
        phi * (age > 50)[:, None],
    ]
    probes.append((treatments / (40, 28)) ** 3)
    for column in np.hstack(probes).T:
        z = (residual * column).sum() / np.sqrt(((residual * column) ** 2).sum())
        assert abs(z) < 4.2
    assert (spend >= 0).all()
    assert 0.1 < (spend == 0).mean() < 0.3


def test_mean_spend_is_positive_on_the_whole_box(experiment: pd.DataFrame) -> None:
    corners = np.array(
        [(depth, days) for depth in np.linspace(0, 40, 9) for days in np.linspace(0, 28, 9)]
    )
    assert (theta_of(experiment) @ BASIS(corners).T).min() > 0.1


def test_personalization_is_worthwhile_and_a_few_treatments_are_not_quite_enough(
    population: pd.DataFrame,
) -> None:
    psi = PROFIT.psi(SPACE.candidates, BASIS)
    profits = profit_matrix(theta_of(population), psi)
    control = profits[:, (SPACE.candidates == 0).all(axis=1)].mean()
    uniform, granular = profits.mean(axis=0).max(), profits.max(axis=1).mean()
    assert 0.1 < (granular - uniform) / (granular - control) < 0.4
    best = SPACE.candidates[profits.argmax(axis=1)]
    assert ((best == SPACE.bounds[:, 0]) | (best == SPACE.bounds[:, 1])).all(axis=1).mean() < 0.05
    assert best.std(axis=0) == pytest.approx([7, 6], abs=2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"block": -1, "seed": 0},
        {"block": 0, "seed": -1},
        {"block": 0, "seed": 0, "rows": BLOCK_ROWS + 1},
    ],
)
def test_impossible_blocks_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match="simulation"):
        simulate_promotions_block(**arguments, experiment=True)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_field_simulation_follows_its_formula(dimensions: int) -> None:
    simulation = field_simulation(40_000, dimensions, seed=5)
    X, T = simulation.X.to_numpy(), simulation.T.to_numpy()
    assert list(simulation.T.columns) == ["t1", "t2"][:dimensions]
    assert np.abs(X).max() <= 1
    assert T.min() >= 0
    assert T.max() <= 2
    b = np.column_stack(
        [
            1.2 + 0.8 * X[:, j] + 0.6 * np.maximum(X[:, j + 2], 0) - 0.4 * X[:, j + 4] * X[:, j + 5]
            for j in range(dimensions)
        ]
    )
    C = np.full((len(X), dimensions, dimensions), 0.25)
    for j in range(dimensions):
        C[:, j, j] = 0.8 + 0.5 * (X[:, j + 3] > 0) + 0.2 * X[:, j + 6]
    mean = (
        np.sin(np.pi * X[:, 0] * X[:, 1])
        + X[:, 2]
        + (b * T).sum(axis=1)
        - 0.5 * np.einsum("ni,nij,nj->n", T, C, T)
    )
    space = TreatmentSpace.from_dict(
        {
            name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}
            for name in simulation.T.columns
        }
    )
    fitted = (Basis("quadratic", space)(T) * simulation.theta).sum(axis=1)
    np.testing.assert_allclose(fitted, mean, atol=1e-12)
    noise = simulation.y - mean
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    pd.testing.assert_frame_equal(field_simulation(40_000, dimensions, seed=5).X, simulation.X)


@pytest.mark.parametrize(("n", "dimensions"), [(10, 3), (0, 1)])
def test_field_simulation_refuses_other_sizes(n: int, dimensions: int) -> None:
    with pytest.raises(InvalidInputError, match="field simulation"):
        field_simulation(n, dimensions)
