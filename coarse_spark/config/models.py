"""What a configuration may say: one frozen model a block, each field with meaning and default."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from coarse_spark.address import is_path
from coarse_spark.config.checks import find_problems
from coarse_spark.config.defaults import format_of, settled
from coarse_spark.config.fields import (
    Address,
    Amounts,
    Bases,
    ByOutcome,
    Column,
    Columns,
    ColumnsByOutcome,
    Comparisons,
    Eligibility,
    ExpressionText,
    Flag,
    Integer,
    Learner,
    Level,
    Location,
    Memory,
    NamePart,
    Number,
    Outcome,
    Place,
    Scale,
    Select,
    Share,
    Sizes,
    SparkSettings,
    SupportRule,
    TableName,
    Text,
    UnitId,
)
from coarse_spark.config.section import Section
from coarse_spark.config.treatments import Treatments, build_space, treatment_names
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis, candidate_bases
from coarse_spark.core.menu.problem.limits import Budget, Limit, Limits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.policies import COMPARISONS
from coarse_spark.core.profit import Profit, ProfitCoefficients
from coarse_spark.core.support import Support, offered_space, tried_levels
from coarse_spark.core.treatments import Categorical, TreatmentSpace
from coarse_spark.errors import InvalidInputError

Format = Annotated[
    Literal["delta", "parquet", "csv"],
    Field(
        description="format of path: delta, parquet or csv (with a header line; ids, keys, strata "
        "and levels of texts stay as they are written); default: by its end, .csv or .parquet, "
        "else delta"
    ),
]

# where a run goes, what it is computed with, how it speaks and what is asked of it besides: with
# others it is the same run
_ELSEWHERE: dict[str, Any] = {
    "output": True,
    "spark": True,
    "privacy": True,
    "frontier": True,
    "profit": {"currency", "per"},
}


class Experiment(Section):
    """The experiment: one row a unit, with its features, the treatment it got and its outcome."""

    table: TableName | None = Field(
        None, description="table of a catalog, such as catalog.schema.table; or use path or bundled"
    )
    path: Location | None = Field(
        None, description="folder or address of the table; relative to the current directory"
    )
    format: Format = "delta"
    bundled: Literal["thornton"] | None = Field(
        None, description="name of a data set that comes with the package: thornton"
    )
    unit_id: UnitId = Field(
        description="column that identifies a unit, or a list of columns that do so together; "
        "unique and never null"
    )
    partition_by: Columns = Field(
        (),
        description="business keys such as market; every combination gets models of its own; "
        "name them among features too",
    )
    features: Columns = Field(
        (),
        description="columns that describe a unit before its treatment; numbers, booleans or "
        "texts; at least one, unless responses are brought along",
    )
    outcome: Outcome = Field(
        description="numeric column with what the treatment is meant to change, or a list of them, "
        "each with a margin of its own and null where a unit does not have it yet"
    )
    weight: Column | None = Field(
        None,
        description="column with the weight of a row; default: every row weighs 1; rows of weight "
        "0 are no rows",
    )
    strata: Columns = Field(
        (), description="columns within whose combinations the treatment was randomized"
    )
    cluster: Column | None = Field(
        None,
        description="column such as household, village or store whose units are not independent "
        "or were treated alike: no fold splits a cluster, and standard errors count clusters; "
        "a unit with null or NaN is one of its own; default: every unit is",
    )

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The columns with outcomes, mostly one."""
        return (self.outcome,) if isinstance(self.outcome, str) else self.outcome

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The columns that together identify a unit, mostly one."""
        return (self.unit_id,) if isinstance(self.unit_id, str) else self.unit_id


class Design(Section):
    """How the experiment gave treatments to units; honest values rest on it."""

    kind: Literal["randomized", "stratified", "learned"] = Field(
        "randomized",
        description="randomized: independent of everything; stratified: randomized within every "
        "combination of experiment.strata, of which those that do not identify the basis are "
        "merged with the nearest in treatment mix; learned: given by a rule or by people who knew "
        "no more than experiment.features, partition_by and strata say; default: stratified where "
        "there are strata, else randomized",
    )


class Response(Section):
    """How the responses E[outcome | features, treatment] are learned."""

    basis: Bases = Field(
        "auto",
        description="terms of the treatment response joined by +, such as quadratic or "
        "any+log1p, or arms; of a list of bases, or of auto for a list that suits the "
        "treatments, the one with the least held-out loss is taken",
    )
    learner: Learner = Field(
        "auto",
        description="what learns the response coefficients; of several outcomes maybe a mapping",
    )
    scale: Scale = Field(
        "auto",
        description="additive; relative: responses are multiples of each unit's expected outcome, "
        "for amounts and counts whose effects and noise grow with it; logistic: they are in "
        "proportion to b (1 - b) of each unit's expected outcome b, for chances and shares from 0 "
        "to 1; auto: what the outcomes' range and noise and held-out rows speak for; of several "
        "outcomes each by itself, or as a mapping says",
    )
    winsorize: Number = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="share of outcomes clipped at either end, for heavy tails; 0: none",
    )
    shape: dict[str, Text] = Field(
        default_factory=dict,
        description="imposed shape by treatment, such as {price: decreasing concave}",
    )
    folds: Integer = Field(
        5,
        ge=2,
        le=20,
        description="folds of cross-fitting: a unit is judged by models that never saw it",
    )
    min_rows: Integer = Field(
        500,
        ge=1,
        description="a partition with fewer usable rows is served by the pooled model, as is one "
        "whose treatments do not identify the basis or whose outcomes are too rare; default: 500, "
        "or max_rows where that is less",
    )
    shrink_to_pooled: Flag = Field(
        True,
        description="true: the pooled model has a share in every partition's model, as large as "
        "held-out rows support",
    )
    max_rows: Integer = Field(
        150_000,
        ge=1,
        description="a partition with more rows is cut into shards whose models are averaged; "
        "default: 150000, which take up to 0.9 GB, or min_rows where that is more",
    )
    max_failed_share: Number = Field(
        0.1, ge=0, le=1, description="largest share of rows in failed partitions that a run accepts"
    )


class Responses(Section):
    """Responses brought along: what the user's own models predict, in place of learned ones."""

    experiment: Place | None = Field(
        None,
        description="table with the responses of the experiment's units: a name such as "
        "catalog.schema.table, or a path (with a / or an end such as .parquet); it has "
        "experiment.unit_id, one row a unit, and columns; others are left alone",
    )
    population: Place | None = Field(
        None,
        description="the same of the population's units, by models that may have seen the "
        "experiment's; default, where the experiment's units are the population: experiment",
    )
    format: Format = "delta"
    columns: ColumnsByOutcome = Field(
        (),
        description="numeric columns with the response coefficients, in the order of the columns "
        "of response.basis; with basis arms the expected outcome under every treatment; of several "
        "outcomes a mapping, outcome to columns",
    )
    fold: Column | None = Field(
        None,
        description="column of the experiment's table with the fold that was left out by the model "
        "which predicted the unit; response.folds of them; default: no model saw any unit of the "
        "experiment",
    )
    out_of_fold: Flag = Field(
        False,
        description="true: declares that models predicted the experiment's units without having "
        "seen any of their fold, or, without fold, any of the experiment; honest values rest on it",
    )

    @property
    def given(self) -> bool:
        """Whether responses are brought along."""
        return self.experiment is not None

    @property
    def sources(self) -> dict[str, Population]:
        """The tables by the key that names them: tables of units, as the population is one."""
        places = {"experiment": self.experiment, "population": self.population}
        return {
            f"responses.{name}": self._source(place)
            for name, place in places.items()
            if place is not None
        }

    def _source(self, place: str) -> Population:
        if not is_path(place):
            return Population(table=place)
        return Population(path=place, format=format_of(place) or self.format)

    @property
    def of_population(self) -> str:
        """The key of the table with the responses of the units that are served."""
        return "responses.experiment" if self.population is None else "responses.population"


class ProfitTerms(Section):
    """Profit of serving a unit with treatment t: margin(t) x expected outcome - cost(t)."""

    margin: ByOutcome = Field(
        "1",
        description="money per unit of outcome, an expression in the treatment names and "
        "profit.unit_columns; of several outcomes a mapping, outcome to expression",
    )
    cost: ExpressionText = Field(
        "0",
        description="money per treated unit whatever the outcome, an expression in the treatment "
        "names and profit.unit_columns",
    )
    unit_columns: Columns = Field(
        (),
        description="numeric columns of experiment and population that may stand in margin, "
        "cost, menu.spending_* and menu.limits, in what expands into a sum of products of "
        "treatments and columns",
    )
    currency: Text | None = Field(
        None, description="what amounts are in, such as EUR or €; words of summary and page alone"
    )
    per: Text = Field(
        "unit",
        description='what one unit\'s profit is of, the words behind "per": unit, customer, or '
        "customer and month, whose totals are per month; words of summary and page alone",
    )


class MenuLimit(Section):
    """One of menu.limits: what a menu comes to, per unit of population weight, is limited."""

    name: Text = Field(description="what summary and page call it; each has another")
    per_unit: ExpressionText = Field(
        "0",
        description="what counts for every unit that gets a treatment, an expression in "
        "treatments and profit.unit_columns",
    )
    per_outcome: ByOutcome = Field(
        "0",
        description="what counts per unit of outcome, an expression in treatments and "
        "profit.unit_columns; of several outcomes a mapping",
    )
    at_most: Number | None = Field(None, description="the most that may count")
    at_least: Number | None = Field(None, description="the least that has to count; one of the two")
    relative_to: Literal["control"] | None = Field(
        None,
        description="control: the limit is so many times what would count if every unit got the "
        "control; default: it is a number of its own",
    )


class Menu(Section):
    """The menu: how many treatments, under which limits, and how they are searched."""

    sizes: Sizes = Field(
        (1, 2, 3, 4, 5, 6),
        description='numbers of treatments to choose menus for: a list, or a range such as "1-6"; '
        "default: 1 to 6, as far as treatments, limits on shares and always_offer allow",
    )
    select: Select = Field(
        "auto",
        description="the size to publish: one of sizes, or auto (smallest within one standard "
        "error or the tolerance of the best)",
    )
    tolerance: Number = Field(
        0.01,
        ge=0,
        lt=1,
        description="what auto may give up for fewer treatments: a share of what the best menu "
        "earns above the best single treatment",
    )
    cost_per_treatment: Number = Field(
        0.0, ge=0, description="money per treatment on the menu and per unit of population weight"
    )
    always_offer: tuple[dict[str, Level], ...] = Field(
        (), description="treatments that every menu has, each naming all dimensions"
    )
    exclude: ExpressionText | None = Field(
        None, description="expression in the treatment names; where it is not 0 nothing is offered"
    )
    support: SupportRule = Field(
        "auto",
        description="treatments that nobody in the experiment got anything near: marked (all are "
        "offered), observed (none is), or auto (all but those between the control and the first "
        "that was tried where the basis jumps there); the menu marks those that it offers",
    )
    eligibility: Eligibility = Field(
        default_factory=dict,
        description="boolean column: expression in the treatment names; treatments where it is "
        "not 0 go only to units whose column is true (null counts as false)",
    )
    previous_run: Text | None = Field(
        None,
        description="an earlier run of this output whose assignments are compared and whose menu "
        "is a start of the search: its id, or current for the latest published one",
    )
    switching_cost: Number = Field(
        0.0,
        ge=0,
        description="money per unit that gets another treatment than from previous_run; units "
        "that had none switch free",
    )
    min_share: Share | None = Field(
        None,
        description="least share of the population weight: one for every treatment, or a list "
        "with one a place on the menu",
    )
    max_share: Share | None = Field(
        None,
        description="largest share of the population weight: one for every treatment, or a list "
        "with one a place on the menu",
    )
    budget: Number | None = Field(
        None,
        description="most money that may be spent per unit of population weight; default: no limit",
    )
    spending_per_unit: ExpressionText | None = Field(
        None,
        description="what counts against the budget for every unit that gets a treatment, money, "
        "an expression in the treatment names and profit.unit_columns; default: profit.cost",
    )
    spending_per_outcome: ByOutcome = Field(
        "0",
        description="what counts against the budget per unit of outcome, such as an incentive "
        "paid on success; money, an expression as in spending_per_unit",
    )
    limits: tuple[MenuLimit, ...] = Field(
        (),
        description="further limits on what the menu comes to, such as another budget, stock, or a "
        "floor on an outcome: a list of name, per_unit and per_outcome (what counts), at_most or "
        "at_least, and relative_to (control)",
    )
    assignment: Literal["exact", "rule"] = Field(
        "exact",
        description="who gets which treatment: exact, the one that earns most with the unit's own "
        "responses; or rule, what a shallow tree over the features says, which SQL can run "
        "(coarse-spark export-rule) and which earns less; it keeps no shares, no budget and "
        "no other limits",
    )
    rule_depth: Integer = Field(
        3,
        ge=1,
        le=6,
        description="most conditions of the rule between all units and a treatment",
    )
    starts: Integer = Field(
        12, ge=1, le=1_000, description="random starts of the search; the best menu is kept"
    )
    sketch_cells: Integer = Field(
        4_000,
        ge=10,
        le=200_000,
        description="weighted units of the sketch that the search works on",
    )
    full_passes: Integer = Field(
        3, ge=0, le=100, description="Lloyd passes over the full population after the search"
    )
    seed: Integer = Field(0, ge=0, le=2**31 - 1, description="seed of everything random in a run")


class Population(Section):
    """The units that get an assignment; the experiment's units unless a table or path is named."""

    table: TableName | None = Field(
        None,
        description="table of a catalog, with unit_id, partition_by and features of the experiment",
    )
    path: Location | None = Field(
        None, description="folder or address of the table; relative to the current directory"
    )
    format: Format = "delta"
    weight: Column | None = Field(
        None,
        description="column with the weight of a unit; default: every unit weighs 1; rows of "
        "weight 0 are no units",
    )
    max_unseen_share: Number = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of units with a level of a text or boolean feature that no row "
        "of the experiment has, by feature other than those of partition_by; models know nothing "
        "of such levels, which mostly are known ones spelt otherwise",
    )

    @property
    def given(self) -> bool:
        """Whether the population is a table of its own."""
        return self.table is not None or self.path is not None


class Evaluation(Section):
    """Honest values of the policies, cross-fitted on response.folds, and the choice's stability."""

    max_loss_to_current: Number | None = Field(
        None,
        ge=0,
        description="a run whose honest value is below that of the current run by more, money per "
        "unit, is not published; default: it is",
    )
    confidence: Number = Field(0.95, gt=0, lt=1, description="level of the confidence intervals")
    comparisons: Comparisons = Field(
        COMPARISONS,
        description="what the menu is compared with, each with as many treatments: segments on "
        "features (k-means, a tree), on responses and on own best treatments (k-means), the best "
        "of a grid, and a random menu; none within limits of menu.*, which they would "
        "not keep",
    )
    grid_points: Integer = Field(
        5, ge=2, le=50, description="points a dimension of the grid that comparisons search"
    )
    resamples: Integer = Field(
        10,
        ge=0,
        le=10_000,
        description="redraws of the responses, with the noise that the models of different folds "
        "show, on which the menu is chosen again to tell how sure the choice is; 0: only the "
        "folds' own menus are compared",
    )


class Frontier(Section):
    """What a run is asked besides: menus as the budget, or the worth of an outcome, moves."""

    budgets: Amounts = Field(
        (),
        description="money per unit of population weight, a menu each; default, where no weights "
        "are given either: up to what menus without a budget spend (coarse-spark frontier alone)",
    )
    outcome: Column | None = Field(
        None,
        description="one of experiment.outcome that weights are of; default: the only one",
    )
    weights: Amounts = Field(
        (),
        description="money that one more unit of the outcome counts for beside its margin, a menu "
        "each: what menus maximize, not what they are valued by",
    )

    @property
    def given(self) -> bool:
        """Whether it says what moves, so that every run looks at it."""
        return bool(self.budgets or self.weights)


class Output(Section):
    """Where the tables go: a folder with a sub-folder a table, or a schema of a catalog."""

    path: Location | None = Field(
        None, description="folder or address; relative to the current directory"
    )
    catalog: NamePart | None = Field(
        None, description="catalog of the schema; default: the session's current catalog"
    )
    schema_name: NamePart | None = Field(
        None, alias="schema", description="schema (database) that holds the tables"
    )
    page: Location | None = Field(
        None,
        description="folder of the page report.html, one that programs of the machine reach: "
        "local, /Volumes/catalog/schema/volume/… or dbfs:/…; default: the folder of the tables "
        "where that is local, else no page is written",
    )


class Spark(Section):
    """What only a local session needs; elsewhere the platform's own settings stand."""

    master: Address = Field("local[*]", description="master of a local session")
    driver_memory: Memory = Field("2g", description="memory of the local Java process, such as 2g")
    shuffle_partitions: Integer | None = Field(
        None, ge=1, description="partitions of a shuffle; default: number of cores"
    )
    conf: SparkSettings = Field(
        default_factory=dict, description="further Spark settings, texts both"
    )


class Configuration(Section):
    """A whole configuration, checked block by block and across blocks.

    Build one with ``load_configuration``, whose errors name lines; or in Python from keyword
    arguments.
    """

    experiment: Experiment = Field(
        description="the experiment's table and the meaning of its columns"
    )
    treatments: Treatments = Field(
        description="treatment column: its kind, bounds, values or levels, and control; or "
        "candidates, a finite list, and control"
    )
    design: Design = Field(
        default_factory=Design, description="how the experiment gave treatments to units"
    )
    response: Response = Field(default_factory=Response, description="how responses are learned")
    responses: Responses = Field(
        default_factory=Responses,
        description="tables with responses that are brought along instead",
    )
    profit: ProfitTerms = Field(
        default_factory=ProfitTerms, description="margin and cost of a treatment"
    )
    menu: Menu = Field(default_factory=Menu, description="sizes, limits and search of the menu")
    population: Population = Field(
        default_factory=Population, description="the units that get an assignment"
    )
    evaluation: Evaluation = Field(
        default_factory=Evaluation, description="honest values of the policies"
    )
    frontier: Frontier = Field(
        default_factory=Frontier,
        description="menus as the budget, or the worth of an outcome, moves",
    )
    output: Output = Field(description="where the tables go")
    spark: Spark = Field(default_factory=Spark, description="settings of a local Spark session")
    privacy: Flag = Field(
        False,
        description="true: messages show ids and other values of the tables as the first 8 hex "
        "digits of their SHA-256",
    )

    @model_validator(mode="after")
    def _check_across_blocks(self) -> Configuration:
        values, given = self.values(), self._given()
        problems = find_problems(values, treatment_names(self.treatments), given)
        if problems:
            raise ValueError(
                "; ".join(
                    f"{'.'.join(map(str, problem.key))}: {problem.message}" for problem in problems
                )
            )
        for key, value in settled(values, given, self.space).items():
            name, _, field = key.partition(".")
            # a default that fits becomes a value like one that was given: nothing settles it again
            self.__dict__[name] = getattr(self, name).model_copy(update={field: value})
        return self

    def _given(self) -> set[str]:
        """Return the dotted keys that were given, not left to their defaults."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            f"{name}.{type(section).model_fields[key].alias or key}"
            for name, section in sections.items()
            if isinstance(section, Section)
            for key in section.model_fields_set
        }

    def values(self) -> dict[str, Any]:
        """Return the valid values by dotted key, such as "menu.sizes"; treatments as one value."""
        result: dict[str, Any] = {}
        for name in type(self).model_fields:
            section = getattr(self, name)
            if isinstance(section, Section):
                result |= {
                    f"{name}.{field.alias or key}": getattr(section, key)
                    for key, field in type(section).model_fields.items()
                }
            else:
                result[name] = section
        return result

    @cached_property
    def space(self) -> TreatmentSpace:
        """The treatments that may be offered."""
        return build_space(self.treatments, self.menu.exclude)

    @property
    def text_columns(self) -> frozenset[str]:
        """Columns whose values are names of something, whatever they look like: 012 is not 12."""
        experiment = self.experiment
        levels = {
            dimension.name
            for dimension in self.space.dimensions
            if isinstance(dimension, Categorical)
            and all(isinstance(level, str) for level in dimension.levels)
        }
        cluster = {experiment.cluster} if experiment.cluster is not None else set()
        keys = {*experiment.id_columns, *experiment.partition_by, *experiment.strata}
        return frozenset(keys | cluster | levels)

    @property
    def bases(self) -> tuple[str, ...]:
        """Names of the treatment bases to compare; one where the basis is given."""
        return candidate_bases(self.response.basis, self.space, shaped=bool(self.response.shape))

    @cached_property
    def basis(self) -> Basis:
        """The treatment basis on the space.

        Raises
        ------
        InvalidInputError : several bases are still to be compared.
        """
        if len(self.bases) > 1:
            raise InvalidInputError(
                f"response.basis compares {', '.join(self.bases)}; the step 'fit' chooses one"
            )
        return Basis(self.bases[0], self.space)

    def with_response(self, **chosen: Any) -> Configuration:
        """Return the configuration with settings of the response, such as the basis of a run."""
        blocks = {field: getattr(self, field) for field in type(self).model_fields}
        return Configuration.model_validate(
            {**blocks, "response": self.response.model_copy(update=chosen)}
        )

    @cached_property
    def response_columns(self) -> tuple[str, ...]:
        """Columns of responses that are brought along, of one outcome after the other."""
        columns = self.responses.columns
        if not isinstance(columns, Mapping):
            return columns
        return tuple(name for outcome in self.experiment.outcomes for name in columns[outcome])

    @cached_property
    def profit_function(self) -> Profit:
        """The profit of a treatment."""
        return self._counted(self.profit.margin, self.profit.cost)

    def _counted(self, per_outcome: str | Mapping[str, str], per_unit: str) -> Profit:
        """Return what is paid per unit of outcome and per unit, in the order of the responses."""
        names, columns = self.experiment.outcomes, self.profit.unit_columns
        # beside several outcomes a text is "0", by ``config.checks``; who is not named is paid none
        texts = (
            dict.fromkeys(names, per_outcome)
            if isinstance(per_outcome, str)
            else {name: per_outcome.get(name, "0") for name in names}
        )
        return Profit(texts if len(names) > 1 else texts[names[0]], per_unit, columns)

    @cached_property
    def limits(self) -> Limits:
        """What every menu has to keep."""
        menu = self.menu
        budget = None if menu.budget is None else Budget(menu.budget, self.spending)
        return Limits(menu.min_share, menu.max_share, budget, tuple(map(self._limit, menu.limits)))

    def _limit(self, limit: MenuLimit) -> Limit:
        amount = self._counted(limit.per_outcome, limit.per_unit)
        bounds = limit.at_most, limit.at_least
        return Limit(limit.name, amount, *bounds, relative_to=limit.relative_to)

    @property
    def spending(self) -> Profit:
        """What counts against a budget, whether or not there is one: margin and cost are spent."""
        menu = self.menu
        return self._counted(menu.spending_per_outcome, menu.spending_per_unit or self.profit.cost)

    @cached_property
    def unit_factors(self) -> int:
        """Number of factors of units that profit and spending are linear in."""
        return len(self.of_units.factors)

    @cached_property
    def of_units(self) -> ProfitCoefficients:
        """What of a unit profit and spending are linear in, on a basis of one column."""
        return ProfitCoefficients.of(1, self._profits)

    @property
    def _profits(self) -> list[Profit]:
        return [self.profit_function, *(limit.row_profit for limit in self.limits.totals)]

    @cached_property
    def always_offered(self) -> FloatArray | None:
        """The encoded treatments (f, d) that every menu holds, None without any."""
        rows = self.menu.always_offer
        return self.space.encode(pd.DataFrame(list(rows))) if rows else None

    def problem_within(
        self, support: Support | None, totals: Sequence[Limit] | None = None
    ) -> MenuProblem:
        """Return space, basis, profit and the treatments that every menu holds.

        Parameters
        ----------
        support : of the experiment, to which ``menu.support`` restricts what is offered; None for
            no restriction.
        totals : limits on totals that coefficients have to tell of; default: the configured ones.

        Raises
        ------
        InvalidInputError : several bases are still to be compared, or fewer treatments are offered
            than a menu has.
        """
        required = np.empty((0, len(self.space.dimensions)))
        if self.always_offered is not None:
            required = self.always_offered
        totals = self.limits.totals if totals is None else totals
        profit = self.profit_function
        if support is None:
            return MenuProblem.build(self.space, self.basis, profit, required, totals=totals)
        space = offered_space(self.basis, support, self.menu.support)
        basis = Basis(self.basis.name, space)
        levels = tried_levels(space)
        extra = [*levels, *required]
        problem = MenuProblem.build(space, basis, profit, extra, totals=totals)
        count, largest = len(problem.candidates), max(self.menu.sizes)
        if space.offered is not None and not problem.searched.any() and count < largest:
            raise InvalidInputError(
                f"menu.sizes: found {largest}, expected at most {count}, the number of treatments "
                f"that may be offered; menu.support ({self.menu.support}) leaves out others, which "
                "nobody in the experiment got anything near"
            )
        return problem

    def to_json(self) -> str:
        """Return the configuration with all defaults as canonical JSON.

        Keys are in the order of the models, without spaces. Treatments keep the order of the file:
        it is the order of the response coefficients. Credentials in addresses and secret values of
        ``spark.conf`` are ``***``: the JSON is made to be stored.
        """
        return self._json({})

    def fingerprint(self) -> str:
        """Return the SHA-256 of what decides on results: ``to_json`` without ``_ELSEWHERE``.

        It is equal for equal configurations, whatever the order of blocks in their files, and
        whatever the credentials; and for those of earlier versions, which lack later keys. What
        counts as spending decides nothing where there is no budget, but for frontiers.
        """
        without = dict(_ELSEWHERE)
        if not self.responses.given:
            without["responses"] = True
        if not self.profit.unit_columns:
            without["profit"] = {*_ELSEWHERE["profit"], "unit_columns"}
        if not self.menu.limits:
            without["menu"] = {"limits"}
        told = self
        if self.menu.budget is None:
            nothing = {"spending_per_unit": None, "spending_per_outcome": "0"}
            told = self.model_copy(update={"menu": self.menu.model_copy(update=nothing)})
        return hashlib.sha256(told._json(without).encode()).hexdigest()

    def _json(self, without: dict[str, Any]) -> str:
        values = self.model_dump(mode="json", by_alias=True, exclude=without)
        return json.dumps(values, separators=(",", ":"), ensure_ascii=False)
