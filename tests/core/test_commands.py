"""How commands begin and end: what ``--run-id`` does, exit codes, no logs of quiet starts."""

from __future__ import annotations

import os
import signal
import tempfile
import traceback
from pathlib import Path

import click
import pytest
import typer

from coarse_spark import cli
from coarse_spark.cli import app, main, task
from coarse_spark.errors import ConfigurationError, RunError

# before 8.2 click took no arguments at all for a wish for help
NO_ARGUMENTS = "NoArgsIsHelpError" if hasattr(click.exceptions, "NoArgsIsHelpError") else None
NEW = "such as a scheduler's job run (default: made of the time)"
ONLY = "(default: the only one of this configuration; with several it has to be given)"
GO_ON = f"The unfinished run to go on with {ONLY}"
LAST = (
    "The run (default: the one of this configuration that was published last, or the only "
    "unfinished one that started after it)."
)
MEANINGS = {
    "run": f"Id of the run, {NEW}. One of this id that stopped goes on after its last finished "
    "step; of a published one only the summary and the page are made again.",
    "resume": f"The unfinished run {ONLY}.",
    "fit": f"Id of the new run, {NEW}; an unfinished run of this id starts anew.",
    "score": f"{GO_ON}.",
    "choose": f"{GO_ON}.",
    "evaluate": f"{GO_ON}.",
    "assign": f"{GO_ON}; with --new the current run, and no other.",
    "publish": f"{GO_ON}.",
    "report": LAST,
    "frontier": LAST,
    "export-rule": LAST,
}


def test_every_command_with_a_run_id_says_what_it_does() -> None:
    command = typer.main.get_command(app)
    told = {
        name: option.help
        for name, one in command.commands.items()  # type: ignore[attr-defined]
        for option in one.params
        if "--run-id" in option.opts
    }
    assert told == MEANINGS


def test_the_log_of_a_session_that_started_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coarse_spark.lake.session import _quiet_start

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with _quiet_start() as record:
        assert record.parent == tmp_path
        os.write(2, b"noise of a start\n")
    assert list(tmp_path.iterdir()) == []

    def fail() -> None:
        with _quiet_start():
            os.write(2, b"why\n")
            raise ValueError("did not start")

    with pytest.raises(ValueError, match="did not start"):
        fail()
    (kept,) = tmp_path.iterdir()
    assert kept.read_text() == "why\n"


def test_an_end_without_failure_ends_no_process(capsys: pytest.CaptureFixture[str]) -> None:
    """Some schedulers take any SystemExit for a failure, even one with 0."""
    main(["version"])
    task(["version"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_a_task_lets_errors_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = ["validate", "--config", str(tmp_path / "none.yml")]
    with pytest.raises(ConfigurationError, match="does not exist"):
        task(missing)
    with pytest.raises(Exception, match="No such option: --colour"):
        task([*missing, "--colour"])
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as end:
        main(missing)
    assert end.value.code == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--help"], None),
        (["fit", "--help"], None),
        (["runs", "show", "--help"], None),
        ([], NO_ARGUMENTS),
        (["runs"], NO_ARGUMENTS),
        (["fti"], "UsageError"),
        (["fit"], "MissingParameter"),
        (["fit", "--config"], "BadOptionUsage"),
        (["simulate", "promotions", "--units", "0", "--out", "x"], "BadParameter"),
        (["runs", "list"], "ConfigurationError"),
    ],
)
def test_no_end_of_a_task_is_a_system_exit(
    arguments: list[str], error: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        task(arguments)
        raised = None
    except Exception as found:  # SystemExit is none
        raised = type(found).__name__
    assert raised == error
    assert error is not None or "Usage: coarse-spark" in capsys.readouterr().out


def test_a_task_that_is_stopped_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "say", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunError, match=r"asked to end \(SIGTERM\)"):
        task(["version"])
    with pytest.raises(SystemExit, match="SIGTERM"):
        main(["version"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_task_that_is_interrupted_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "say", interrupt)
    # click says it with an error of its own
    with pytest.raises((RunError, click.exceptions.Abort), match=r"stopped \(code 130\)|^$"):
        task(["version"])
    with pytest.raises(SystemExit) as end:
        main(["version"])
    assert end.value.code != 0


def test_a_task_tells_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers print the error with all that caused it."""
    address = "s3a://bucket/x?sv=1&sig=SECRET"

    def fail(_: str) -> None:
        try:
            raise OSError(f"no such path: {address}")
        except OSError as error:
            raise RunError(f"experiment: {address} cannot be read: {error}") from error

    monkeypatch.setattr(cli, "say", fail)
    with pytest.raises(RunError) as raised:
        task(["version"])
    told = "".join(traceback.format_exception(raised.value))
    assert "experiment: s3a://bucket/x?*** cannot be read: no such path" in told
    assert "SECRET" not in told


def test_settings_without_a_configuration_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="give --config in place of --output"):
        task(["runs", "list", "--output", "s3a://bucket/out", "--set", "menu.seed=3"])
