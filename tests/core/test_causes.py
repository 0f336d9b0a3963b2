"""The cause of a failure that a person can act on, in texts that Spark 4.2 and Delta 4.4 gave.

``causes.json`` holds them with what is told of each; of every stack trace one line is left.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coarse_spark.causes import first_cause, without_kind

GIVEN = json.loads(Path(__file__).with_name("causes.json").read_text(encoding="utf-8"))

JAVA = "An error occurred while calling o7.save.\n"


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (
            f"{JAVA}: java.io.IOException: No space left on device\n\tat a.b.C.d(C.java:1)",
            "IOException: No space left on device",
        ),
        (
            f"{JAVA}: org.apache.spark.SparkException: Job aborted\n\tat a.b.C.d(C.java:1)\n"
            "Caused by: java.io.IOException: No space left on device\n\tat e.f.G.h(G.java:1)",
            "IOException: No space left on device",
        ),
        (
            "Exception thrown in awaitResult: \nCaused by: org.apache.spark.api.python."
            "PythonException: Traceback\n  File worker.py\nValueError: no rows\n\tat a.b.C.d",
            "ValueError: no rows",
        ),
        ("only this", "only this"),
        ("\n\n", "unknown cause"),
    ],
)
def test_the_cause_of_a_failure_is_found_below_what_wraps_it(message: str, cause: str) -> None:
    assert first_cause(message) == cause


@pytest.mark.parametrize("given", GIVEN, ids=[row["situation"] for row in GIVEN])
def test_what_spark_says_is_told_in_a_sentence(given: dict[str, str]) -> None:
    cause = first_cause(given["error"])
    assert cause == given["cause"]
    assert "\n" not in cause
    assert len(cause) < 400
    assert not any(word in cause for word in ("java.", "org.apache", "coarse_spark.errors"))


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("SparkException: \n\n[A_STATE] no rows", "SparkException: [A_STATE] no rows"),
        ("ValueError: \n  no rows", "ValueError: no rows"),
        ("a.b.OurError:\nTraceback (most recent call last):\nc.KeyError: 'x'", "KeyError: 'x'"),
        ("SparkException: [SOME_STATE]\n\tat a.b.C.d(C.java:1)", "SparkException: [SOME_STATE]"),
        ("ValueError", "ValueError"),
        ("ValueError: ", "ValueError:"),
    ],
)  # fmt: skip
def test_a_message_may_begin_with_a_new_line(message: str, cause: str) -> None:
    assert first_cause(message) == cause


def test_a_cause_without_its_kind() -> None:
    assert (
        without_kind("SparkException: [A_B] such: as ValueError: x")
        == "[A_B] such: as ValueError: x"
    )
    assert without_kind("the file /data/a is cut off") == "the file /data/a is cut off"
