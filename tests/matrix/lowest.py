"""The lowest versions that pyproject.toml allows: the command starts, and the core tests pass.

python tests/matrix/lowest.py      (`make test-lowest`)

Needs uv beside this Python; the environment is .venv-lowest. What the dependencies bring themselves
is as constraints.txt has it, or pairs/lowest.txt where they are too old for that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

from environments import ROOT, build, pinned


def main() -> int:
    """Build, run, and return the exit code of what failed first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["spark"]]
    python = build(
        ROOT / ".venv-lowest",
        sys.executable,
        ["--editable", f"{ROOT}[spark]"],
        pinned("lowest", but=asked),
        lowest=True,
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in (
        [python.with_name("coarse-spark"), "--help"],
        [python, "-m", "pytest", "-m", "not slow", "-p", "no:cacheprovider", "tests/core"],
    ):
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
