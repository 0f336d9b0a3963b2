"""What is shipped: light imports, a complete wheel without a hard pyspark, and pinned dependencies.

The files have to fit any machine.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import coarse_spark

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = ("pyspark", "delta", "matplotlib", "econml")

# hosts that the project's files may name: licence, literature, storage in examples, this machine
HOSTS = {"www.apache.org", "arxiv.org", "doi.org", "bucket", "127.0.0.1", "localhost", ""}
_ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://([A-Za-z0-9.-]*)")
_INDEX_OPTION = re.compile(
    r"--?(extra-)?index-url|--find-links|--trusted-host|\bPIP_(INDEX|EXTRA|FIND|TRUSTED)"
)
_MACHINE_PATH = re.compile(
    r"(?<![\w.:/~}<-])/(?:home|root|Users|work|tmp|private|opt|usr|var|mnt|srv)/\w[\w./-]*"
)


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [
        path
        for path in (ROOT / name for name in listed.stdout.split("\0") if name)
        if path.is_file()
    ]


def _lines() -> Iterator[tuple[str, str]]:
    """Yield the place and text of every line of the tracked text files."""
    for path in _tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        yield from (
            (f"{path.relative_to(ROOT)}:{number}", line)
            for number, line in enumerate(text.splitlines(), start=1)
        )


# --- imports --------------------------------------------------------------------------------------

_IMPORT_ALL = """
import importlib, pkgutil, sys
import {package} as package
for module in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
    importlib.import_module(module.name)
print(*sorted(name for name in {heavy} if name in sys.modules))
"""


@pytest.mark.parametrize(
    "package", ["coarse_spark.config", "coarse_spark.core", "coarse_spark.cli"]
)
def test_importing_imports_neither_spark_nor_pictures(package: str) -> None:
    assert _python(_IMPORT_ALL.format(package=package, heavy=HEAVY)) == ""


def test_importing_the_package_alone_imports_no_library() -> None:
    libraries = (*HEAVY, "numpy", "pandas", "scipy", "sklearn", "ot", "pydantic")
    loaded = f"(name for name in {libraries} if name in sys.modules)"
    assert _python(f"import coarse_spark, sys; print(*{loaded})") == ""


def test_public_names() -> None:
    from coarse_spark import Profit, ResponseLearner, TreatmentSpace, choose_menu

    assert set(coarse_spark.__all__) == {
        "Profit",
        "ResponseLearner",
        "TreatmentSpace",
        "__version__",
        "choose_menu",
        "honest_values",
    }
    assert all(getattr(coarse_spark, name) is not None for name in coarse_spark.__all__)
    parameters = inspect.signature(choose_menu).parameters
    assert {
        "space",
        "basis",
        "profit",
        "k",
        "weights",
        "min_share",
        "max_share",
        "budget",
        "always_offer",
        "seed",
    } <= set(parameters)
    assert {"basis", "learner", "random_state"} <= set(
        inspect.signature(ResponseLearner).parameters
    )
    assert list(inspect.signature(Profit).parameters)[:2] == ["margin", "cost"]
    assert callable(TreatmentSpace.from_dict)
    assert callable(TreatmentSpace.from_candidates)
    with pytest.raises(AttributeError, match="choose_menus"):
        _ = coarse_spark.choose_menus


# --- the wheel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(folder),
            str(ROOT),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "coarse_spark/py.typed",
        "coarse_spark/report/page.html.j2",
        "coarse_spark/cli/__init__.py",
    } <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"coarse_spark"}
    ours = {
        str(path.relative_to(ROOT))
        for path in _tracked()
        if path.is_relative_to(ROOT / "coarse_spark")
    }
    assert ours <= names


def test_wheel_needs_pyspark_only_for_the_extra_spark(metadata: Message) -> None:
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    always = {
        canonicalize_name(r.name)
        for r in requirements
        if r.marker is None or r.marker.evaluate({"extra": ""})
    }
    assert "numpy" in always
    assert not always & {"pyspark", "delta-spark"}
    for name in ("pyspark", "delta-spark"):
        extras = [
            extra
            for extra in PROJECT["project"]["optional-dependencies"]
            if _asked_for(name, requirements, extra)
        ]
        assert extras == ["spark"], name


def _asked_for(name: str, requirements: list[Requirement], extra: str) -> bool:
    return any(
        r.name.lower() == name and (r.marker is None or r.marker.evaluate({"extra": extra}))
        for r in requirements
    )


def test_installed_wheel_has_the_version_of_the_package_and_its_command(
    wheel: Path, metadata: Message, tmp_path: Path
) -> None:
    assert metadata["Version"] == coarse_spark.__version__
    assert wheel.name.startswith(f"coarse_spark-{coarse_spark.__version__}-")
    target = tmp_path / "installed"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(target),
            str(wheel),
        ],
        check=True,
        timeout=120,
    )
    said = subprocess.run(
        [sys.executable, str(target / "bin" / "coarse-spark"), "version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert said.stdout.strip() == coarse_spark.__version__


# --- pins and addresses ---------------------------------------------------------------------------


def _pins() -> dict[str, str]:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, equals, version = line.partition("==")
            assert equals, f"constraints.txt: '{line}' is not pinned"
            pins[canonicalize_name(name.strip())] = version.strip()
    return pins


def _declared() -> list[Requirement]:
    project = PROJECT["project"]
    groups = [
        PROJECT["build-system"]["requires"],
        project["dependencies"],
        *project["optional-dependencies"].values(),
    ]
    return [Requirement(text) for group in groups for text in group]


def test_every_dependency_is_pinned_to_a_version_it_allows() -> None:
    pins = _pins()
    for requirement in _declared():
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} of pyproject.toml is not in constraints.txt"
        assert requirement.specifier.contains(pins[name]), (
            f"constraints.txt has {name} {pins[name]}, pyproject.toml {requirement}"
        )


def test_everything_that_the_dependencies_bring_is_pinned() -> None:
    pins, waiting, seen = _pins(), _declared(), set()
    while waiting:
        requirement = waiting.pop()
        for extra in requirement.extras or {""}:
            key = (canonicalize_name(requirement.name), extra)
            if key in seen:
                continue
            seen.add(key)
            try:
                needs = importlib.metadata.requires(requirement.name) or []
            except importlib.metadata.PackageNotFoundError:
                # of an extra that is not installed here, such as bench
                continue
            brought = [Requirement(text) for text in needs]
            waiting += [
                r for r in brought if r.marker is None or r.marker.evaluate({"extra": extra})
            ]
    assert len(seen) > len(PROJECT["project"]["dependencies"])
    assert sorted(name for name, _ in seen if name not in pins) == []


def test_no_file_names_a_package_index_or_another_foreign_host() -> None:
    # this file has examples of the searches
    lines = [(place, line) for place, line in _lines() if Path(__file__).name not in place]
    foreign = [
        f"{place}: {host}"
        for place, line in lines
        for host in _ADDRESS.findall(line)
        if host not in HOSTS
    ]
    assert foreign == []
    options = [place for place, line in lines if _INDEX_OPTION.search(line)]
    assert options == []


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{place}: {path}"
        for place, line in _lines()
        for path in _MACHINE_PATH.findall(line)
        if not (place.endswith(":1") and line.startswith("#!")) and Path(__file__).name not in place
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (_ADDRESS, "--index https://packages.example/of-python"),
        (_INDEX_OPTION, "pip install --index-url x"),
        (_MACHINE_PATH, "cd /home/x"),
    ],
)
def test_the_searches_find_what_they_look_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)
