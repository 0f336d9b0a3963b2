"""Is there a Java that Spark can run on?

Run as a module it says so before anything slow starts, and has Java archive the classes of Spark.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess  # nosec B404  # to ask Java for its version
import sys
from dataclasses import dataclass
from pathlib import Path

from coarse_spark.compatibility import java_versions
from coarse_spark.errors import RuntimeSetupError


@dataclass(frozen=True)
class Java:
    """A Java that Spark runs on.

    Attributes
    ----------
    major : its version, such as 17.
    answer : all that it says of its version.
    """

    major: int
    answer: str


def check_java() -> Java:
    """Return the Java that Spark would start.

    Raises
    ------
    RuntimeSetupError : no Java is found, it does not run, or Spark does not support its version;
        or there is no Spark.
    """
    try:
        supported = java_versions()
    except ImportError:
        raise RuntimeSetupError(
            "pyspark is not installed; install the extra: pip install 'coarse-spark[spark]'"
        ) from None
    *others, last = map(str, supported)
    wanted = (
        f"Spark needs Java {', '.join(others)} or {last}: install it and put it on PATH, or set "
        "JAVA_HOME to its folder"
    )
    home = os.environ.get("JAVA_HOME")
    if home:
        java = str(Path(home) / "bin" / "java")
        if not Path(java).exists():
            raise RuntimeSetupError(f"JAVA_HOME is {home}, but {java} does not exist. {wanted}.")
    else:
        found = shutil.which("java")
        if found is None:
            raise RuntimeSetupError(
                f"no Java was found (JAVA_HOME is not set and no java is on PATH). {wanted}."
            )
        java = found
    try:
        answer = subprocess.run(  # noqa: S603  # nosec B603  # the user's own Java
            [java, "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeSetupError(f"{java} did not run: {error}. {wanted}.") from None
    told = answer.stderr + answer.stdout
    match = re.search(r'version "(\d+)(?:\.(\d+))?', told)
    if match is None:
        raise RuntimeSetupError(f"{java} -version said nothing that names a version. {wanted}.")
    major = (
        int(match[2]) if match[1] == "1" and match[2] else int(match[1])
    )  # Java 8 calls itself 1.8
    if major not in supported:
        raise RuntimeSetupError(f"{java} is Java {major}. {wanted}.")
    return Java(major, told)


if __name__ == "__main__":
    # the session that it starts asks this module
    from coarse_spark.lake.java_classes import archive_classes

    try:
        archive_classes(check_java())
    except RuntimeSetupError as problem:
        sys.stderr.write(f"error: {problem}\n")
        sys.exit(problem.exit_code)
