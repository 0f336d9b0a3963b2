"""What other programs read: the bundle of Databricks jobs, settings of clusters, the CI workflow.

The rules of the bundle are those of ``bundle/schema/jsonschema.json`` in the repository
databricks/cli at commit 3798248c9b10: the keys of every mapping, which allows no others, and those
that it requires. Where the package databricks-bundles is installed, whose classes Databricks
generates from the same schema, the jobs are read with it too.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from coarse_spark.cli import app
from coarse_spark.config.load import load_configuration

ROOT = Path(__file__).parents[1]
BUNDLE: dict[str, Any] = yaml.safe_load((ROOT / "databricks.yml").read_text())
JOBS: dict[str, Any] = BUNDLE["resources"]["jobs"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEPS = ["fit", "choose", "evaluate", "assign", "publish", "report"]

# the mappings that the bundle uses: the keys that the schema allows, with ! those that it requires
KEYS = {
    "root": "artifacts bundle experimental include permissions presets resources run_as scripts "
    "sync targets variables workspace",
    "bundle": "cluster_id databricks_cli_version deployment git !name uuid",
    "variable": "default description lookup type",
    "artifact": "build dynamic_version executable files path type",
    "sync": "exclude include paths",
    "permission": "group_name !level service_principal_name user_name",
    "target": "artifacts bundle cluster_id default git mode permissions presets resources run_as "
    "sync variables workspace",
    "workspace": "artifact_path auth_type file_path host profile resource_path root_path "
    "state_path",
    "run_as": "service_principal_name user_name",
    "job": "budget_policy_id continuous description email_notifications environments git_source "
    "health job_clusters max_concurrent_runs name notification_settings parameters "
    "performance_target permissions queue run_as schedule tags tasks timeout_seconds trigger "
    "webhook_notifications",
    "queue": "!enabled",
    "schedule": "pause_status !quartz_cron_expression !timezone_id",
    "environment": "!environment_key spec",
    "spec": "base_environment dependencies environment_version java_dependencies",
    "job_cluster": "!job_cluster_key !new_cluster",
    "cluster": "autoscale aws_attributes azure_attributes cluster_log_conf custom_tags "
    "data_security_mode docker_image driver_node_type_id gcp_attributes init_scripts "
    "instance_pool_id is_single_node kind node_type_id num_workers policy_id runtime_engine "
    "single_user_name spark_conf spark_env_vars spark_version use_ml_runtime",
    "task": "depends_on description disable_auto_optimization email_notifications environment_key "
    "existing_cluster_id health job_cluster_key libraries max_retries "
    "min_retry_interval_millis new_cluster notebook_task notification_settings "
    "python_wheel_task retry_on_timeout run_if run_job_task spark_python_task sql_task "
    "!task_key timeout_seconds webhook_notifications",
    "wheel": "!entry_point named_parameters !package_name parameters",
    "library": "cran jar maven pypi requirements whl",
    "dependency": "outcome !task_key",
}
LEVELS = {"CAN_MANAGE", "CAN_VIEW", "CAN_RUN"}
VARIABLE = re.compile(r"\$\{var\.(\w+)\}")


def _mappings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every mapping of the bundle with its kind."""
    yield "root", BUNDLE
    yield "bundle", BUNDLE["bundle"]
    yield "sync", BUNDLE["sync"]
    yield from (("variable", one) for one in BUNDLE["variables"].values())
    yield from (("artifact", one) for one in BUNDLE["artifacts"].values())
    yield from (("permission", one) for one in BUNDLE["permissions"])
    for target in BUNDLE["targets"].values():
        yield "target", target
        yield from ((name, target[name]) for name in ("workspace", "run_as") if name in target)
        yield from (("permission", one) for one in target.get("permissions", ()))
    for job in JOBS.values():
        yield "job", job
        yield "queue", job["queue"]
        yield "schedule", job["schedule"]
        for one in job.get("environments", ()):
            yield "environment", one
            yield "spec", one["spec"]
        for one in job.get("job_clusters", ()):
            yield "job_cluster", one
            yield "cluster", one["new_cluster"]
        for one in job["tasks"]:
            yield "task", one
            yield "wheel", one["python_wheel_task"]
            yield from (("library", library) for library in one.get("libraries", ()))
            yield from (("dependency", before) for before in one.get("depends_on", ()))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for entry in value.values():
            yield from _texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, str):
        yield value


def test_every_mapping_has_the_keys_of_the_schema() -> None:
    for kind, mapping in _mappings():
        allowed = {key.lstrip("!") for key in KEYS[kind].split()}
        required = {key[1:] for key in KEYS[kind].split() if key.startswith("!")}
        assert required <= set(mapping) <= allowed, (kind, mapping)
    assert set(BUNDLE["resources"]) == {"jobs"}
    levels = [one["level"] for kind, one in _mappings() if kind == "permission"]
    assert set(levels) <= LEVELS


def test_the_classes_of_the_schema_read_the_jobs() -> None:
    jobs = pytest.importorskip("databricks.bundles.jobs", reason="databricks-bundles is not here")
    for job in JOBS.values():
        read = jobs.Job.from_dict(job)
        assert [task.task_key for task in read.tasks] == STEPS
    with pytest.raises(ValueError, match="max_concurent_runs"):
        jobs.Job.from_dict({**JOBS["coarse_cluster"], "max_concurent_runs": 1})


def test_variables_are_declared_and_used_and_every_target_gives_those_without_default() -> None:
    declared = BUNDLE["variables"]
    used = {name for text in _texts(BUNDLE) for name in VARIABLE.findall(text)}
    assert used == set(declared)
    assert {"catalog", "schema"} <= used
    needed = {name for name, one in declared.items() if "default" not in one}
    assert set(BUNDLE["targets"]) == {"dev", "prod"}
    for target in BUNDLE["targets"].values():
        assert needed <= set(target["variables"]) <= set(declared)
    modes = {name: target["mode"] for name, target in BUNDLE["targets"].items()}
    assert modes == {"dev": "development", "prod": "production"}
    assert [name for name, target in BUNDLE["targets"].items() if target.get("default")] == ["dev"]


@pytest.mark.parametrize("name", sorted(JOBS))
def test_jobs_do_the_steps_of_one_run_in_their_order(name: str) -> None:
    job = JOBS[name]
    assert job["queue"] == {"enabled": True}
    assert job["max_concurrent_runs"] == 1
    command = typer.main.get_command(app)
    before: list[dict[str, str]] = []
    for step, task in zip(STEPS, job["tasks"], strict=True):
        assert task["task_key"] == step
        assert task.get("depends_on", []) == before
        before = [{"task_key": step}]
        assert task["max_retries"] > 0
        wheel = task["python_wheel_task"]
        assert wheel["package_name"] == PROJECT["name"]
        assert PROJECT["scripts"][wheel["entry_point"]] == "coarse_spark.cli:task"
        called, *options = wheel["parameters"]
        assert called == step
        assert "--run-id={{job.run_id}}" in options
        # the command takes what it is given
        one = command.commands[called]  # type: ignore[attr-defined]
        given = one.make_context(called, list(options)).params
        assert given["run_id"] == "{{job.run_id}}"
        assert given["config"] == Path("${workspace.file_path}/${var.config}")
        assert given.get("publish", False) is False, "a task of its own publishes"


def test_where_the_jobs_run() -> None:
    serverless, cluster = JOBS["coarse_serverless"], JOBS["coarse_cluster"]
    (environment,) = serverless["environments"]
    # the schema: environment_key is required for wheel tasks on serverless compute
    assert {task["environment_key"] for task in serverless["tasks"]} == {
        environment["environment_key"]
    }
    assert "environment_version" in environment["spec"]  # `client` is deprecated
    assert not any("libraries" in task for task in serverless["tasks"])
    (computer,) = cluster["job_clusters"]
    assert {task["job_cluster_key"] for task in cluster["tasks"]} == {computer["job_cluster_key"]}
    built = BUNDLE["artifacts"]["coarse_spark"]["build"].split()[-1]
    assert all(task["libraries"] == [{"whl": f"./{built}/*.whl"}] for task in cluster["tasks"])
    assert environment["spec"]["dependencies"] == [f"./{built}/*.whl"]
    # of two jobs that do the same one has its schedule
    states = [
        BUNDLE["variables"][f"{name}_schedule"]["default"] for name in ("serverless", "cluster")
    ]
    assert sorted(states) == ["PAUSED", "UNPAUSED"]


@pytest.mark.parametrize(("target", "running"), [("dev", 0), ("prod", 1)])
def test_schedules_run_in_production_alone(target: str, running: int) -> None:
    """The mode development pauses only schedules that have no state of their own."""
    given = {name: one.get("default") for name, one in BUNDLE["variables"].items()}
    given |= BUNDLE["targets"][target]["variables"]
    states = [
        VARIABLE.sub(lambda found: given[found[1]], job["schedule"]["pause_status"])
        for job in JOBS.values()
    ]
    assert states.count("UNPAUSED") == running
    assert states.count("PAUSED") == len(JOBS) - running


def test_the_configuration_of_the_jobs_is_one_for_a_catalog() -> None:
    configuration = load_configuration(ROOT / BUNDLE["variables"]["config"]["default"])
    output = configuration.output
    assert output.path is None
    assert (output.catalog, output.schema_name) == ("main", "coarse")
    assert output.page == "/Volumes/main/coarse/pages"
    same = load_configuration(
        ROOT / "conf" / "promotions.yml",
        {
            "experiment.path": "null",
            "experiment.table": "main.shop.experiment",
            "population.path": "null",
            "population.table": "main.shop.population",
        },
    )
    assert same.fingerprint() == configuration.fingerprint()


def test_settings_of_a_cluster_name_the_delta_lake_that_belongs_to_spark() -> None:
    lines = (ROOT / "conf" / "spark-defaults.conf").read_text().splitlines()
    settings = dict(line.split(None, 1) for line in lines if line and not line.startswith("#"))
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith(("pyspark=", "delta_spark="))
    )
    spark = ".".join(pins["pyspark"].split(".")[:2])
    packages = f"io.delta:delta-spark_{spark}_2.13:{pins['delta_spark']}"
    assert settings["spark.jars.packages"] == packages
    assert settings["spark.sql.extensions"] == "io.delta.sql.DeltaSparkSessionExtension"


def test_the_message_and_the_documentation_have_the_same_recipes() -> None:
    from coarse_spark.lake.workers import RECIPE

    page = (ROOT / "docs" / "clusters.md").read_text()
    for words in (
        "make zip",
        "--py-files dist/coarse_spark.zip",
        "make archive",
        "--archives dist/coarse_spark_environment.tar.gz#environment",
        "--conf spark.pyspark.python=./environment/bin/python",
        "--conf spark.pyspark.driver.python=",
    ):
        assert words in page
        assert words in RECIPE


def test_the_workflow_calls_targets_of_the_makefile() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert set(workflow[True]) >= {"push", "schedule"}  # YAML 1.1 reads `on` as true
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    called = set()
    for job in workflow["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {}).get("target", [None])
        for step in job["steps"]:
            called |= {
                str(step.get("run", "")).replace("${{ matrix.target }}", str(target))
                for target in matrix
            }
    made = {command.removeprefix("make ") for command in called if command}
    assert made >= {"lint", "test", "test-all", "test-matrix", "test-lowest"}
    # made elsewhere: the versions that the package is declared for
    assert made - {"test-matrix", "test-lowest"} <= targets
    assert "schedule" in workflow["jobs"]["nightly"]["if"]
    assert "if" not in workflow["jobs"]["checks"]
