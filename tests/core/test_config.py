"""What a valid configuration gives: defaults, parsed values, overrides and a stable fingerprint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from coarse_spark.config.load import load_configuration, read_configuration
from coarse_spark.config.models import Configuration
from coarse_spark.config.treatments import DIMENSIONS, CandidateList
from coarse_spark.core.profit import Profit
from coarse_spark.core.support import Support
from coarse_spark.errors import ConfigurationError, InvalidInputError

CONF = Path(__file__).parents[2] / "conf"
SMALL = """
experiment: {bundled: thornton, unit_id: unit_id, features: [age], outcome: got}
treatments:
  tinc: {kind: continuous, lower: 0, upper: 2.84, step: 0.1, control: 0}
design: {kind: randomized}
output: {path: output/thornton}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path, SMALL)


def test_defaults(small: Path) -> None:
    configuration = load_configuration(small)
    assert configuration.menu.sizes == (1, 2, 3, 4, 5, 6)
    assert configuration.menu.select == "auto"
    assert (configuration.menu.tolerance, configuration.menu.support) == (0.01, "auto")
    assert (configuration.response.basis, configuration.response.folds) == ("auto", 5)
    assert (configuration.response.min_rows, configuration.response.max_rows) == (500, 150_000)
    assert configuration.response.shrink_to_pooled is True
    assert (configuration.profit.margin, configuration.profit.cost) == ("1", "0")
    assert configuration.evaluation.confidence == 0.95
    assert not configuration.population.given
    assert configuration.spark.master == "local[*]"


def test_what_counts_of_outcomes_is_in_the_terms_of_the_responses(tmp_path: Path) -> None:
    wanted = """
menu: {sizes: [2], budget: 1, spending_per_outcome: WHAT, limits: [LIMIT]}
response: {basis: linear}
"""
    limit = "{name: floor, per_outcome: WHAT, at_least: 0.1}"
    text = SMALL + wanted.replace("LIMIT", limit)
    several = text.replace("outcome: got", "outcome: [got, learned]")
    one = load_configuration(write(tmp_path, text.replace("WHAT", "tinc")))
    for margin in ("{got: 2}", "2"):
        paid = f"profit: {{margin: {margin}}}"
        found = load_configuration(write(tmp_path, text.replace("WHAT", "{got: tinc}") + paid))
        assert found.profit_function == Profit("2")
        assert found.limits == one.limits
        assert found.problem_within(None).of_profit.outcomes == ("outcome",)
    # nothing is paid for outcomes, and a limit counts one of them
    paid = "profit: {margin: 0, cost: tinc}"
    found = load_configuration(write(tmp_path, several.replace("WHAT", "{learned: 1}") + paid))
    of_profit = found.problem_within(None).of_profit
    assert (of_profit.outcomes, of_profit.responses) == (("got", "learned"), 4)


def test_the_mathematical_objects(small: Path) -> None:
    configuration = load_configuration(
        small,
        {
            "profit.margin": "4 - tinc",
            "menu.exclude": "0 < tinc < 0.5",
            "response.basis": "quadratic",
        },
    )
    assert configuration.space.candidates[:3, 0].tolist() == [0.0, 0.5, 0.6]
    assert configuration.basis.columns == ("1", "tinc", "tinc^2")
    psi = configuration.profit_function.psi(np.array([[1.0]]), configuration.basis)
    np.testing.assert_array_equal(psi, [[3.0, 3.0, 3.0, 0.0]])


def test_the_support_of_the_experiment_restricts_what_is_offered(small: Path) -> None:
    wanted = {"response.basis": "any+linear", "menu.sizes": "1-4"}
    configuration = load_configuration(small, wanted)
    given = np.array([[0.0], [1.0], [2.0]]).repeat(20, axis=0)
    support = Support.of(given, configuration.basis)
    assert configuration.menu.support == "auto"
    everything = configuration.problem_within(None)
    assert len(everything.candidates) == 29
    gap = configuration.problem_within(support).candidates[:, 0]
    assert sorted(gap) == [0, *everything.candidates[10:, 0]]
    observed = load_configuration(small, {**wanted, "menu.support": "observed"})
    with pytest.raises(InvalidInputError, match=r"menu\.sizes: found 4, expected at most 3"):
        observed.problem_within(support)
    # whoever wants a treatment on every menu gets it
    required = {"menu.support": "observed", "menu.always_offer": "[{tinc: 0.5}]"}
    problem = load_configuration(small, {**wanted, **required}).problem_within(support)
    assert sorted(problem.candidates[:, 0]) == [0, 0.5, 1, 2]


def test_retired_keys_are_accepted_with_a_note(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old.yml"
    path.write_text(f"{SMALL}menu:\n  seed: 3\n  method: auto\n")
    overrides = {"menu.update": "plain"}
    expected = [
        f"{path}:9: menu.method is no longer needed and can be left out",
        "--set menu.update: menu.update is no longer needed and can be left out",
    ]
    old, notes = read_configuration(path, overrides)
    assert notes == expected
    assert load_configuration(path, overrides) == old
    assert caplog.messages == expected
    new, notes = read_configuration(small, {"menu.seed": "3"})
    assert notes == []
    assert new.fingerprint() == old.fingerprint()
    assert new.menu.starts == 12


LISTED = SMALL.replace(
    "tinc: {kind: continuous, lower: 0, upper: 2.84, step: 0.1, control: 0}",
    "{candidates: CANDIDATES, control: {price: 9.9, gift: none}}",
).replace("treatments:\n  ", "treatments: ")
ROWS = "[{price: 9, gift: none}, {gift: mug, price: 8}, {price: 9, gift: mug}]"


def test_a_finite_list_stands_in_the_file_or_beside_it(tmp_path: Path) -> None:
    frame = pd.DataFrame({"price": [9, 8, 9], "gift": ["none", "mug", "mug"]})
    frame.to_csv(tmp_path / "offers.csv", index=False)
    frame.to_parquet(tmp_path / "offers.parquet")
    found: dict[str, Any] = {}
    for text in (ROWS, "offers.csv", "offers.parquet"):
        found[text] = load_configuration(write(tmp_path, LISTED.replace("CANDIDATES", text)))
        space = found[text].space
        assert space.decode(space.candidates).to_numpy().tolist() == [
            [9.0, "none"],
            [8.0, "mug"],
            [9.0, "mug"],
            [9.9, "none"],
        ]
        assert space.names == ("price", "gift")
    # a run keeps the treatments themselves, so that it can be repeated when the file has changed
    assert len({configuration.fingerprint() for configuration in found.values()}) == 1
    frame.head(2).to_csv(tmp_path / "offers.csv", index=False)
    again = Configuration.model_validate_json(found["offers.csv"].to_json())
    assert again == found["offers.csv"].with_response(folds=5)
    path = write(tmp_path, LISTED.replace("CANDIDATES", "offers.csv"))
    assert load_configuration(path).fingerprint() != again.fingerprint()
    assert load_configuration(path, {"menu.exclude": "gift == 'mug' and price < 9"}).space.finite
    always = {"menu.always_offer": "[{price: 8, gift: mug}]", "menu.sizes": "1-2"}
    assert load_configuration(path, always).always_offered is not None
    # a dimension may have that name all the same
    named = SMALL.replace("tinc:", "candidates:")
    other = load_configuration(write(tmp_path, named)).with_response(basis="linear")
    assert other.space.names == ("candidates",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("offers.csv", "treatments.candidates: found '/tmp/"),
        ("offers.txt", "the file's name has to end in .csv or .parquet"),
        ("[]", "treatments.candidates: found [], expected a CSV or Parquet file beside"),
        ("[{price: 9}, {gift: mug}]", "row 2 names gift, row 1 price"),
        ("[{price: 9, gift: }]", "expected a mapping of treatment columns to values"),
        ("[{price: 9}]", "treatments.control: control names price, gift; expected a value for"),
        ("[{price: 9, gift: mug}, {price: 9, gift: mug}]", "candidate rows 1 repeat earlier rows"),
        (f"{ROWS}, step: 1", "expected one of control, candidates"),
        (f"{ROWS}, control: 3", "treatments.control: the key occurs twice"),
    ],
)
def test_finite_lists_that_are_none(rows: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, LISTED.replace("CANDIDATES", rows))
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path)
    assert message.removeprefix("treatments.candidates: found '/tmp/") in str(caught.value)
    assert "run.yml:3: treatments" in str(caught.value)


def test_levels_of_a_file_that_look_like_numbers_are_texts_where_the_control_is_one(
    tmp_path: Path,
) -> None:
    # with the mark and the blanks that spreadsheets and people put into its first line
    (tmp_path / "offers.csv").write_text("\ufeffprice, gift \n9,01\n8,2\n", encoding="utf-8")
    path = write(tmp_path, LISTED.replace("CANDIDATES", "offers.csv"))
    space = load_configuration(path).space
    assert space.decode(space.candidates).to_numpy().tolist() == [
        [9.0, "01"],
        [8.0, "2"],
        [9.9, "none"],
    ]


def test_a_file_of_candidates_has_no_empty_fields(tmp_path: Path) -> None:
    (tmp_path / "offers.csv").write_text("price,gift\n9,mug\n8,\n")
    path = write(tmp_path, LISTED.replace("CANDIDATES", "offers.csv"))
    with pytest.raises(ConfigurationError, match="found none in column 'gift' of row 2"):
        load_configuration(path)


def test_values_of_a_dimension(tmp_path: Path) -> None:
    text = SMALL.replace("lower: 0, upper: 2.84, step: 0.1", "values: [0.5, 2.5, 1]")
    configuration = load_configuration(write(tmp_path, text))
    assert configuration.space.candidates[:, 0].tolist() == [0.5, 1.0, 2.5, 0.0]
    assert Configuration.model_validate_json(configuration.to_json()) == configuration
    for change, message in (
        ("menu.always_offer=[{tinc: 2}]", "found 2, expected the control 0 or one of 0.5, 1, 2.5"),
        ("treatments.tinc.values=[1, 1]", "values are [1.0, 1.0], expected distinct numbers"),
        ("treatments.tinc.values=3", "found 3, expected a valid tuple"),
        ("treatments.tinc.step=1", "found an unknown key, expected one of kind, values, control"),
    ):
        key, value = change.split("=")
        with pytest.raises(ConfigurationError) as caught:
            load_configuration(tmp_path / "run.yml", {key: value})
        assert message in str(caught.value)


def test_several_bases_wait_for_a_choice(small: Path) -> None:
    for text, names in (
        ("auto", ("linear", "quadratic", "any + quadratic", "spline")),
        ("[linear, any+log1p]", ("linear", "any+log1p")),
    ):
        configuration = load_configuration(small, {"response.basis": text})
        assert configuration.bases == names
        with pytest.raises(
            InvalidInputError, match=r"compares linear, .*; the step 'fit' chooses one"
        ):
            _ = configuration.basis
        chosen = configuration.with_response(basis="spline(tinc, 0.5, 1.5)")
        assert chosen.basis.size == 4
        assert chosen.bases == ("spline(tinc, 0.5, 1.5)",)
        assert chosen.profit == configuration.profit
        assert configuration.bases == names
    assert load_configuration(small, {"response.basis": "[linear]"}).basis.name == "linear"


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("1-4", (1, 2, 3, 4)), ("[5, 2, 2]", (2, 5)), ("3", (3,)), ("'2 - 3'", (2, 3))],
)
def test_sizes(small: Path, text: str, sizes: tuple[int, ...]) -> None:
    assert load_configuration(small, {"menu.sizes": text}).menu.sizes == sizes


def test_overrides_are_yaml_and_make_blocks(small: Path) -> None:
    overrides = {
        "menu.seed": "3",
        "experiment.features": "[age, distvct]",
        "spark.conf": "{spark.a: true, spark.b: 2}",
        "treatments.tinc.step": "null",
        "profit.cost": "0.25",
        "response": "{folds: 2}",
    }
    configuration = load_configuration(small, overrides)
    assert configuration.menu.seed == 3
    assert configuration.experiment.features == ("age", "distvct")
    assert configuration.spark.conf == {"spark.a": "true", "spark.b": "2"}
    assert configuration.space.continuous.all()
    assert configuration.profit.cost == "0.25"
    assert configuration.response.folds == 2


def test_an_override_in_an_empty_block(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL + "menu:\n  # sizes: 1-3\n")
    assert load_configuration(path).menu.seed == 0
    assert load_configuration(path, {"menu.seed": "9"}).menu.seed == 9


def test_paths_count_from_the_current_directory(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configuration = load_configuration(small, {"population": "{path: people/../units}"})
    assert configuration.output.path == str(tmp_path.resolve() / "output/thornton")
    assert configuration.population.path == str(tmp_path.resolve() / "units")
    assert (
        load_configuration(small, {"output.path": "s3://bucket/a/../b"}).output.path
        == "s3://bucket/a/../b"
    )


def test_a_catalog_schema(tmp_path: Path) -> None:
    path = write(
        tmp_path, SMALL.replace("{path: output/thornton}", "{catalog: main, schema: coarse}")
    )
    output = load_configuration(path).output
    assert (output.catalog, output.schema_name, output.path) == ("main", "coarse", None)


def test_keys_that_yaml_takes_for_booleans_are_names(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL.replace("  tinc:", "  on:"))
    assert load_configuration(path, {"profit.margin": "4 - on"}).space.names == ("on",)


def test_anchors_and_merges(tmp_path: Path) -> None:
    text = SMALL.replace("  tinc: {", "  tinc: &dose {") + "  # a second dimension like the first\n"
    text = text.replace("design:", "  more: {<<: *dose, upper: 1}\ndesign:")
    configuration = load_configuration(write(tmp_path, text))
    assert configuration.space.bounds.tolist() == [[0, 2.84], [0, 1]]


def test_the_fingerprint_knows_the_values_alone(small: Path, tmp_path: Path) -> None:
    configuration = load_configuration(small)
    blocks = yaml.safe_load(SMALL)
    (tmp_path / "other").mkdir()
    shuffled = write(
        tmp_path / "other",
        "# a comment\n" + yaml.safe_dump(dict(reversed(blocks.items())), sort_keys=False),
    )
    assert load_configuration(shuffled).fingerprint() == configuration.fingerprint()
    assert (
        load_configuration(small, {"menu.seed": "0"}).fingerprint() == configuration.fingerprint()
    )
    assert (
        load_configuration(small, {"menu.seed": "1"}).fingerprint() != configuration.fingerprint()
    )
    assert len(configuration.fingerprint()) == 64


def test_spending_without_a_budget_decides_nothing_but_frontiers(small: Path) -> None:
    plain = load_configuration(small).fingerprint()
    spent = {"menu.spending_per_outcome": "0.1", "menu.spending_per_unit": "1"}
    asked = load_configuration(small, {**spent, "frontier.budgets": "[2]"})
    assert asked.fingerprint() == plain
    assert asked.spending == Profit("0.1", "1")
    limited = [
        load_configuration(small, {**spent, **more, "menu.budget": "2"}).fingerprint()
        for more in ({}, {"menu.spending_per_unit": "3"})
    ]
    assert len({plain, *limited}) == 3


def test_the_order_of_treatments_is_part_of_the_configuration(small: Path) -> None:
    # response coefficients come in the order of the treatments: a run must not go on with another
    # one
    depth, days = (
        {"kind": "continuous", "lower": 0, "upper": upper, "control": 0} for upper in (40, 28)
    )
    blocks: dict[str, Any] = yaml.safe_load(SMALL) | {"profit": {"margin": "1"}}
    one = Configuration.model_validate(blocks | {"treatments": {"depth": depth, "days": days}})
    other = Configuration.model_validate(blocks | {"treatments": {"days": days, "depth": depth}})
    assert one.fingerprint() != other.fingerprint()
    for configuration in (one, other):
        assert (
            Configuration.model_validate_json(configuration.to_json()).space.names
            == configuration.space.names
        )


def test_json_gives_the_same_configuration_back(small: Path) -> None:
    configuration = load_configuration(
        small, {"menu.always_offer": "[{tinc: 0}]", "experiment.strata": "[villnum]"}
    )
    restored = Configuration.model_validate_json(configuration.to_json())
    assert restored == configuration
    assert restored.fingerprint() == configuration.fingerprint()


SECRETS = {
    "experiment": "{path: 's3a://_me:hunter2@bucket/units', unit_id: id, features: [age], "
    "outcome: got}",
    "population.path": "https://bucket/people?sv=1&se=2026&sig=hunter2",
    "output.path": "s3a://_me:hunter2@bucket/tables",
    "spark.master": "sc://localhost:443/;token=hunter2",
    "spark.conf": "{spark.hadoop.fs.s3a.secret.key: hunter2, spark.ssl.keyPassword: hunter2, "
    "spark.driver.extraJavaOptions: -Dx.password=hunter2 -Xss4m, spark.sql.ansi.enabled: true}",
}


def test_secrets_are_used_and_never_stored(small: Path) -> None:
    configuration = load_configuration(small, SECRETS)
    assert configuration.experiment.path == "s3a://_me:hunter2@bucket/units"
    assert configuration.spark.model_dump()["conf"]["spark.ssl.keyPassword"] == "hunter2"
    text = configuration.to_json()
    assert "hunter2" not in text
    assert "_me:" not in text
    stored = json.loads(text)
    assert stored["experiment"]["path"] == "s3a://***@bucket/units"
    assert stored["population"]["path"] == "https://bucket/people?***"
    assert stored["output"]["path"] == "s3a://***@bucket/tables"
    assert stored["spark"]["conf"] == {
        "spark.hadoop.fs.s3a.secret.key": "***",
        "spark.ssl.keyPassword": "***",
        "spark.driver.extraJavaOptions": "-Dx.password=*** -Xss4m",
        "spark.sql.ansi.enabled": "true",
    }
    # what is stored is a configuration still
    assert Configuration.model_validate_json(text).to_json() == text


def test_the_fingerprint_is_of_what_decides_on_results(small: Path) -> None:
    configuration = load_configuration(small, SECRETS)
    rotated = {
        key: value.replace("hunter2", "other").replace("_me", "_you").replace("2026", "2027")
        for key, value in SECRETS.items()
    }
    assert load_configuration(small, rotated).fingerprint() == configuration.fingerprint()
    for key, value, same in (
        ("output.path", "elsewhere", True),
        ("spark.driver_memory", "8g", True),
        ("privacy", "true", True),
        ("population.path", "s3a://_me:hunter2@other/people", False),
        ("evaluation.confidence", "0.9", False),
    ):
        changed = load_configuration(small, {**SECRETS, key: value})
        assert changed != configuration
        assert (changed.fingerprint() == configuration.fingerprint()) == same, key


def test_ids_of_one_and_of_several_columns(small: Path) -> None:
    def ids(text: str) -> tuple[Any, tuple[str, ...]]:
        experiment = load_configuration(small, {"experiment.unit_id": text}).experiment
        return experiment.unit_id, experiment.id_columns

    assert ids("unit_id") == ids("[unit_id]") == ("unit_id", ("unit_id",))
    assert ids("[villnum, number]") == (("villnum", "number"), ("villnum", "number"))
    # a part of an id may describe the unit too
    several = {
        "experiment.unit_id": "[villnum, age]",
        "experiment.partition_by": "[villnum]",
        "experiment.strata": "[villnum]",
    }
    configuration = load_configuration(small, several)
    assert Configuration.model_validate_json(configuration.to_json()) == configuration


def test_values_never_change(small: Path) -> None:
    configuration = load_configuration(small)
    with pytest.raises(ValidationError, match="frozen"):
        configuration.menu.seed = 3  # type: ignore[misc]  # that is the test


def test_python_gets_the_checks_across_blocks_too() -> None:
    blocks: dict[str, Any] = yaml.safe_load(SMALL)
    assert Configuration(**blocks) == Configuration.model_validate(blocks)
    with pytest.raises(
        ValidationError,
        match=r"menu\.select: found 9.*profit\.margin: '4 - tin' uses the unknown name 'tin'",
    ):
        Configuration(**blocks, profit={"margin": "4 - tin"}, menu={"select": 9, "sizes": [2]})


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yml")), ids=lambda path: path.name)
def test_the_projects_own_configurations(path: Path) -> None:
    configuration = load_configuration(path)
    assert configuration.menu.select == "auto"
    assert len(configuration.space.candidates) >= configuration.menu.sizes[-1]


def test_the_main_job() -> None:
    configuration = load_configuration(CONF / "thornton.yml")
    assert configuration.experiment.bundled == "thornton"
    assert configuration.menu.sizes == (1, 2, 3, 4, 5, 6)
    assert "hiv" not in str(configuration.experiment).lower()
    offered = configuration.space.candidates[:, 0]
    assert offered[0] == 0
    # the smallest positive incentive of the experiment is 0.09456 dollars, the largest 2.8368
    assert offered[1] >= 0.09456
    assert offered[-1] <= 2.8368


def test_every_field_says_what_it_means() -> None:
    def sections(model: Any) -> Any:
        yield model
        for field in model.model_fields.values():
            if hasattr(field.annotation, "model_fields"):
                yield from sections(field.annotation)

    for model in (*sections(Configuration), *DIMENSIONS.values(), CandidateList):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_the_configuration_knows_no_spark() -> None:
    heavy = "('pyspark', 'delta', 'matplotlib', 'sklearn')"
    code = (
        f"import sys, coarse_spark.config.load; print([name for name in {heavy} if name in "
        "sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == "[]"


def test_errors_are_of_the_class_for_configurations(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(tmp_path / "none.yml")
    assert caught.value.exit_code == 2


def test_words_of_money_are_no_part_of_what_a_run_is(small: Path) -> None:
    plain = load_configuration(small)
    words = {"profit.currency": "€", "profit.per": "customer and month"}
    told = load_configuration(small, words)
    assert (told.profit.currency, told.profit.per) == ("€", "customer and month")
    assert told.fingerprint() == plain.fingerprint()
    assert '"currency":"€"' in told.to_json()


def test_a_configuration_of_an_earlier_version_keeps_its_fingerprint() -> None:
    """Keys that came later are left out at their defaults, so that its runs go on."""
    thornton = CONF / "thornton.yml"
    assert load_configuration(thornton).fingerprint().startswith("a3a5b13353fccd88")
    factor = {"profit.unit_columns": "[distvct]", "profit.cost": "tinc * distvct"}
    assert not load_configuration(thornton, factor).fingerprint().startswith("a3a5b13353fccd88")
