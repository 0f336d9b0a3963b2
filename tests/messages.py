"""What people write and what they are told: the rows of docs/messages.md, which tests assert.

A topic is added here, with a function that does with a text what a user would; its rows are then
asserted by tests/core/test_messages.py. A topic whose messages only Spark gives has none, and is
asserted by a test under tests/spark that reads its rows.
"""

# ruff: noqa: E501  # a message a line

from __future__ import annotations

import html
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coarse_spark import Profit, ResponseLearner, TreatmentSpace, choose_menu
from coarse_spark.causes import first_cause
from coarse_spark.config.load import load_configuration
from coarse_spark.core.expressions import Expression
from coarse_spark.errors import CoarseSparkError, ConfigurationError

CONFIGURATION = """\
experiment:
  path: /data/units
  unit_id: id
  partition_by: [market]
  features: [age, pc_count]
  outcome: spend
treatments:
  arm:
    kind: categorical
    levels: [mail, sms]
    control: mail
  discount:
    kind: continuous
    lower: 0
    upper: 20
    step: 10
    control: 0
profit:
  margin: 1
  cost: 1
menu:
  sizes: [2]
  exclude: discount > 15
  eligibility: {member: discount > 5}
output:
  path: out
"""

SPACE = TreatmentSpace.from_dict(
    {
        "arm": {"kind": "categorical", "levels": ["0", "10", "20"], "control": "0"},
        "gift": {"kind": "categorical", "levels": ["none", "mug"], "control": "none"},
        "price": {"kind": "continuous", "values": [40, 60, 100], "control": 0},
    }
)

PRICES = TreatmentSpace.from_dict(
    {"price": {"kind": "continuous", "lower": 0, "upper": 1, "step": 0.5, "control": 0}}
)


@dataclass(frozen=True)
class Topic:
    """Messages of one kind.

    Attributes
    ----------
    title : of the topic.
    about : a sentence or two above the rows.
    rows : what is written, and what is told.
    told : returns what is told of a text; None where only Spark tells it.
    heading : of the first column.
    """

    title: str
    about: str
    rows: tuple[tuple[str, str], ...]
    told: Callable[[str], str] | None = None
    heading: str = "you write"


def configured(written: str) -> str:
    """Return what is told of a configuration in which a key, with all below it, is another."""
    key = re.escape(written.split(":")[0])
    found = re.search(rf"^( *){key}:.*\n(?:\1 +.*\n)*", CONFIGURATION, re.MULTILINE)
    assert found is not None, written
    lines = "".join(f"{found[1]}{line}\n" for line in written.splitlines())
    text = CONFIGURATION[: found.start()] + lines + CONFIGURATION[found.end() :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yml")
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError) as caught:
            load_configuration(path)
    *heading, told = str(caught.value).splitlines()  # one problem has one line
    assert len(heading) <= 1, caught.value
    return re.sub(r"^.*?run\.yml(:\d+)?: ", "", told)


def expressed(written: str) -> str:
    """Return what is told of an expression in the treatments of ``SPACE``."""
    with pytest.raises(CoarseSparkError) as caught:
        SPACE.check(Expression(written))
    return str(caught.value)


def called(written: str) -> str:
    """Return what is told of a call of Python, with 20 units of a quadratic response."""
    names = {
        "TreatmentSpace": TreatmentSpace,
        "choose_menu": partial(choose_menu, space=PRICES, basis="quadratic", profit=Profit(), k=2),
        "ResponseLearner": ResponseLearner,
        "np": np,
        "pd": pd,
        "theta": np.c_[np.ones(20), np.linspace(-1, 1, 20), -np.ones(20)],
        "age": pd.DataFrame({"age": np.arange(20.0)}),
        "discount": np.arange(20.0) % 3,
        "spend": np.arange(20.0) % 7,
    }
    with pytest.raises(CoarseSparkError) as caught:
        eval(written, names)  # noqa: S307
    return str(caught.value)


CAUSES = json.loads(Path(__file__).with_name("core").joinpath("causes.json").read_text("utf-8"))


def failed(written: str) -> str:
    """Return what is told of a failure, from the text that Spark gave of it."""
    (error,) = (row["error"] for row in CAUSES if row["situation"] == written)
    return first_cause(error)


OF_UNITS = "columns of the units may be experiment.features, name in menu.eligibility who may get a treatment, or be profit.unit_columns, which may stand in profit and spending"

TOPICS = (
    Topic(
        "Comparisons that can never hold",
        "The levels of `arm` are the texts '0', '10' and '20', those of `gift` are none and mug, `price` is one of 40, 60 and 100. What an expression guards with such a comparison would silently vanish.",
        (
            ("where(arm == 10, 5, 0)", "'where(arm == 10, 5, 0)' compares 'arm' with 10, which is none of its levels (did you mean '10'?); its levels: '0', '10', '20'"),
            ("gift == 'mgu'", "'gift == 'mgu'' compares 'gift' with 'mgu', which is none of its levels (did you mean 'mug'?); its levels: 'none', 'mug'"),
            ("price == 50", "'price == 50' compares 'price' with 50, which is none of its levels (did you mean 40.0?); its levels: 0.0, 40.0, 60.0, 100.0"),
            ("gift == arm", "'gift == arm' compares names that have no level in common, in 'gift == arm'"),
            ("arm > 5", "'arm > 5' orders the levels of arm, which are texts, in 'arm > 5'"),
            ("where(gift, 1, 0)", "'where(gift, 1, 0)' takes 'gift' for a number or a condition, whose levels are texts; compare it, such as gift == 'none'"),
        ),
        expressed,
    ),
    Topic(
        "Places",
        "A place is a local path or an address of the storage system. The experiment is in /data/units.",
        (
            ("path: ${HOME}/out", "experiment.path: '${HOME}/out' has a variable, which nothing fills in; write the path"),
            ("path: ~nosuchuser/out", "experiment.path: '~nosuchuser/out': nobody here is called so"),
            ("path: file://bucket/out", "experiment.path: 'file://bucket/out' is on another machine; expected file:///…"),
            ("output: {path: /data/units/run}", "output.path: found /data/units/run, which is, holds or lies in experiment.path, expected a folder apart from the inputs"),
        ),
        configured,
    ),
    Topic(
        "Names of columns",
        "Names are those of the table, letter by letter. In expressions a name that is no identifier stands in backticks, as in SQL.",
        (
            ("features: [age, Age]", "experiment.features[1]: found 'Age' beside 'age', which Spark takes for the same column, expected one spelling or another column"),
            ("partition_by: [Id]", "experiment.partition_by[0]: found 'Id' beside 'id', which Spark takes for the same column, expected one spelling or another column"),
            ("exclude: price net > 2", "menu.exclude: 'price net > 2' is not an arithmetic expression: invalid syntax (where it is a name, write `price net` with its backticks)"),
            ("exclude: '`price net > 2'", "menu.exclude: '`price net > 2' is not an arithmetic expression: invalid syntax (a name in backticks ends with one; a backtick inside is written twice)"),
            ("exclude: price.net > 2", "menu.exclude: 'price.net > 2' contains 'price.net', which is not allowed; allowed: numbers, names, + - * / **, comparisons, and, or, not, min, max, abs, exp, log, where (where it is a name, write `price.net` with its backticks)"),
        ),
        configured,
    ),
    Topic(
        "What YAML reads texts without quotes as",
        "YAML 1.1 has readings of its own of texts without quotes. Where a text could be meant as well, they are refused.",
        (
            ("levels: [mail, null]", 'treatments.arm.levels[1]: found null, expected a text in quotes, a number, or true or false (in quotes, "null", it is a text)'),
            ("levels: [mail, ~]", 'treatments.arm.levels[1]: found null, expected a text in quotes, a number, or true or false (YAML reads ~ as null; in quotes, "~", it is a text)'),
            ("levels: [mail, 2024-03-01]", 'treatments.arm.levels[1]: found the date 2024-03-01, expected a text in quotes, a number, or true or false (in quotes, "2024-03-01", it is a text)'),
            ("levels: [mail, [sms]]", "treatments.arm.levels[1]: found ['sms'], expected a text in quotes, a number, or true or false"),
            ("levels: [mail, .nan]", "treatments.arm.levels[1]: found nan, expected a finite number"),
            ("levels: [mail, 1:8]", 'treatments.arm.levels[1]: found 1:8, which YAML reads as 68, expected "1:8" in quotes for the text, or 68 without'),
            ("levels: [mail, 12:30]", 'treatments.arm.levels[1]: found 12:30, which YAML reads as 750, expected "12:30" in quotes for the text, or 750 without'),
            ("levels: [mail, 1:8.5]", 'treatments.arm.levels[1]: found 1:8.5, which YAML reads as 68.5, expected "1:8.5" in quotes for the text, or 68.5 without'),
            ("levels: [mail, 010]", 'treatments.arm.levels[1]: found 010, which YAML reads as 8, expected "010" in quotes for the text, or 8 without'),
            ("levels: [mail, 0x1f]", 'treatments.arm.levels[1]: found 0x1f, which YAML reads as 31, expected "0x1f" in quotes for the text, or 31 without'),
            ("levels: [mail, 1_000]", 'treatments.arm.levels[1]: found 1_000, which YAML reads as 1000, expected "1_000" in quotes for the text, or 1000 without'),
            ("levels: [mail, 1e3]", 'treatments.arm.levels[1]: found 1e3, which YAML reads as a text, expected "1e3" in quotes for the text, or 1000 for the number'),
            ("levels: [mail, NO]", 'treatments.arm.levels[1]: found NO, which YAML reads as false, expected "NO" in quotes for the text, or false without'),
            ("levels: [mail, yes]", 'treatments.arm.levels[1]: found yes, which YAML reads as true, expected "yes" in quotes for the text, or true without'),
            ("levels: [mail, off]", 'treatments.arm.levels[1]: found off, which YAML reads as false, expected "off" in quotes for the text, or false without'),
            ("unit_id: no", 'experiment.unit_id: found false, expected a text; put it in quotes where YAML reads it as something else (YAML reads no as false; in quotes, "no", it is a text)'),
            ("unit_id: 12:30", 'experiment.unit_id: found 12:30, which YAML reads as 750, expected "12:30" in quotes for the text, or 750 without'),
            ("features: [age, y1, NO]", "experiment.features: found ['age', 'y1', false], expected a list of column names (YAML reads NO as false; in quotes, \"NO\", it is a text)"),
            ("features: [age, 007]", 'experiment.features[1]: found 007, which YAML reads as 7, expected "007" in quotes for the text, or 7 without'),
            ("partition_by: [2024-01-01]", 'experiment.partition_by: found [the date 2024-01-01], expected a list of column names (in quotes, "2024-01-01", it is a text)'),
            ("upper: 1:8", 'treatments.discount.upper: found 1:8, which YAML reads as 68, expected "1:8" in quotes for the text, or 68 without'),
            ("upper: 020", 'treatments.discount.upper: found 020, which YAML reads as 16, expected "020" in quotes for the text, or 16 without'),
            ("upper: on", 'treatments.discount.upper: found true, expected a number (YAML reads on as true; in quotes, "on", it is a text)'),
            ("unit_id: 2024-13-01", "not valid YAML: 2024-13-01 cannot be read; in quotes it is a text, month must be in 1..12"),
        ),
        configured,
    ),
    Topic(
        "Slips in YAML",
        "",
        (
            ("profit: {cost: where(arm == 'sms', 2, 0.5)}", "profit.cost: the commas in {…} end the value, expected quotes around it: \"where(arm == 'sms', 2, 0.5)\""),
            ("profit: {cost: max(discount, min(2, 3)), margin: 2}", 'profit.cost: the commas in {…} end the value, expected quotes around it: "max(discount, min(2, 3))"'),
            ("eligibility: {vip: where(discount > 3, 1, 0), old: arm == 'sms'}", 'menu.eligibility.vip: the commas in {…} end the value, expected quotes around it: "where(discount > 3, 1, 0)"'),
            ("exclude: 'sms' == arm", "not valid YAML: while parsing a block mapping, expected <block end>, but found '<scalar>'; a value that begins with a quote ends with it: put all of it in quotes"),
            ("unit_id: id\nunit_id: customer", "experiment.unit_id: the key occurs twice, first in line 3; expected it once"),
            ("output: {path: out, path: in}", "output.path: the key occurs twice, first in line 25; expected it once"),
        ),
        configured,
    ),
    Topic(
        "Columns of the units in expressions",
        "",
        (
            ("cost: 0.1 * pc_count", f"profit.cost: '0.1 * pc_count' uses 'pc_count', which is a column of the units (experiment.features), expected treatments or profit.unit_columns: arm, discount; {OF_UNITS}"),
            ("margin: discont", f"profit.margin: 'discont' uses the unknown name 'discont' (did you mean 'discount'?); known names: arm, discount; {OF_UNITS}"),
            ("exclude: spend > 100", f"menu.exclude: 'spend > 100' uses 'spend', which is a column of the units (experiment.outcome), expected treatments alone: arm, discount; {OF_UNITS}"),
            ("eligibility: {member: age > 60}", f"menu.eligibility.member: 'age > 60' uses 'age', which is a column of the units (experiment.features), expected treatments alone: arm, discount; {OF_UNITS}"),
        ),
        configured,
    ),
    Topic(
        "Arguments of the Python functions",
        "Numbers may have any type of numpy and pandas; only ratios of weights count.",
        (
            ("choose_menu(theta, weights=np.zeros(20))", "no unit has weight: theta has 20 rows, 20 of them with finite numbers"),
            ("choose_menu(theta, weights=['a'] * 20)", "weights: found 'a', expected real numbers"),
            ("choose_menu(theta, weights=pd.Series([1] * 19 + [pd.NA], dtype='Int64'))", "1 of 20 units have missing or infinite coefficients or weights: rows 19; mend them, or leave them out with invalid='drop'"),
            ("choose_menu(theta * 1e300)", "theta: found 1e+300, expected at most 1e+30; use a larger unit"),
            ("choose_menu(theta + 0j)", "theta: found (1+0j), expected real numbers"),
            ("choose_menu(theta, budget='a lot')", "budget: found 'a lot', expected real numbers"),
            ("choose_menu(theta, budget=np.nan)", "budget: found nan, expected one finite number"),
            ("choose_menu(theta, cost_per_treatment=pd.NA)", "cost_per_treatment: found <NA>, expected one finite number"),
            ("choose_menu(theta, always_offer={'price': 0.5})", "always_offer is no list of mappings of treatments to values, such as [{'price': ...}]"),
            ("choose_menu(theta, max_share={'a': 0.5})", "max_share: there is no candidate row a; rows are 0 to 2"),
            ("choose_menu(theta, eligible={'price > 0.5': pd.Series([True] * 19 + [None], dtype='boolean')})", "eligible: rule 'price > 0.5' is missing for 1 of 20 units, expected true or false"),
            ("choose_menu(theta).assign(theta * np.nan)", "20 of 20 units have missing or infinite coefficients, the first in row 0; mend them, or leave them out"),
            ("choose_menu(theta, min_share=pd.NA)", "min_share is missing, expected a share between 0 and 1"),
            ("ResponseLearner().fit(age, discount, ['yes'] * 20)", "outcomes: found 'yes', expected real numbers"),
            ("ResponseLearner().fit(age, discount, spend * 1e300)", "outcomes: found 6e+300, expected at most 1e+30; use a larger unit"),
            ("ResponseLearner().fit(age, discount, spend, sample_weight=np.zeros(20))", "weights must not be negative, and at least one must be above zero"),
            ("ResponseLearner().fit(pd.concat([age, age], axis=1), discount, spend)", "feature 'age' occurs twice, expected it once"),
            ("ResponseLearner().fit(age, discount * 1e-300, spend)", "treatment 't1': upper is 2e-300 above lower, expected at least 1e-30; use a smaller unit"),
            ("ResponseLearner().fit(age, pd.DataFrame({'at': pd.date_range('2024', periods=20)}), spend)", "treatment 'at' holds Timestamp('2024-01-01 00:00:00'), expected numbers or text; turn dates into numbers first"),
            ("ResponseLearner().fit(age, discount, spend, strata=np.arange(40))", "rows do not match: 20 features, 20 treatments, 20 outcomes, 20 weights, 40 strata"),
            ("ResponseLearner(learner='sieve').fit(age, discount, spend).predict(age.astype(str))", "feature 'age' holds '0.0', expected numbers as in the fit"),
            ("ResponseLearner('linear').fit(age, pd.DataFrame({'1': discount}), spend)", "basis 'linear': two different columns are called '1', expected names of treatments and levels that tell them apart; rename one"),
            ("TreatmentSpace.from_dict({'price, net': {'kind': 'continuous', 'lower': 0, 'upper': 1, 'control': 0}})", "treatment 'price, net': found the name 'price, net', expected one without , ( ) and spaces at its ends, which a basis cannot name"),
            ("TreatmentSpace.from_dict({'arm': {'kind': 'categorical', 'levels': ['a', pd.NA], 'control': 'a'}})", "treatment 'arm': levels are ['a', <NA>] and control is 'a', expected texts, numbers or booleans, none of them missing"),
            ("TreatmentSpace.from_dict({'arm': {'kind': 'categorical', 'levels': 'abc', 'control': 'a'}})", "treatment 'arm': levels are 'abc', expected a list"),
            ("TreatmentSpace.from_dict({'d': {'kind': 'continuous', 'lower': 0, 'upper': 1e308, 'control': 0}})", "treatment 'd': upper is 1e+308, expected at most 1e+30; use a larger unit"),
            ("TreatmentSpace.from_dict({'d': {'kind': 'continuous', 'lower': 0, 'upper': 1, 'step': 1e-300, 'control': 0}}).candidates", "the treatment grid has over 10^12 points, at most 20000 are searched; use larger steps"),
            ("TreatmentSpace.from_candidates([{'price': 1}], {'price': 1})", "candidates are a list, expected a DataFrame, one row a candidate"),
        ),
        called,
    ),
    Topic(
        "Failures of Spark, by what is the matter",
        "What Spark, Delta and Java print of a failure, and where they print the cause in it, differs. Told are the file, column, feature or host, and what to do.",
        tuple((row["situation"], row["cause"]) for row in CAUSES),
        failed,
        heading="what is the matter",
    ),
)  # fmt: skip


def page() -> str:
    """Return the text of docs/messages.md."""
    parts = [
        "# What you write, what you are told\n",
        "Every row is asserted by a test: the page is written from `tests/messages.py`.\n",
    ]
    for topic in TOPICS:
        cell = _code if topic.heading == "you write" else _text
        rows = [f"| {cell(written)} | {_text(told)} |" for written, told in topic.rows]
        parts += [
            f"## {topic.title}\n",
            *([f"{topic.about}\n"] if topic.about else []),
            "\n".join([f"| {topic.heading} | you are told |", "| --- | --- |", *rows]) + "\n",
        ]
    return "\n".join(parts)


def _code(written: str) -> str:
    lines = [line.replace("|", "\\|") for line in written.splitlines()]
    return "<br>".join(f"`{line}`" for line in lines)


def _text(told: str) -> str:
    escaped = re.sub(r"([\\`*_{}\[\]#])", r"\\\1", html.escape(told, quote=False))
    return escaped.replace("|", "&#124;")
