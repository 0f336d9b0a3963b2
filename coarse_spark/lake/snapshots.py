"""What can be recognised again of a table that others write: a Delta commit, or a set of files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

_PIN = re.compile(r"(\d+)(?:@(\S+))?")
_GLOB = re.compile(r"([\\{}\[\]*?])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# folders in which a Delta table is looked for before the rest count as plain files
_LOOKS = 16


@dataclass(frozen=True)
class Commit:
    """One version of a Delta table, as text "12@2025-06-30T09:15:02.123Z".

    The time tells it from the version of that number in a table that was dropped and created
    again, which counts from 0; the table's own id does not, for CREATE OR REPLACE changes it and
    keeps the versions.

    Attributes
    ----------
    version : number of the version.
    time : when it was committed; empty where that was not recorded.
    """

    version: int
    time: str = ""

    def __str__(self) -> str:
        return f"{self.version}@{self.time}" if self.time else str(self.version)

    @classmethod
    def parse(cls, text: str) -> Commit | None:
        """Return the commit that a text says, None for any other text."""
        match = _PIN.fullmatch(text)
        return cls(int(match[1]), match[2] or "") if match else None


def commits(spark: SparkSession, reference: str, count: int = 1) -> list[Commit]:
    """Return the latest commits of a Delta table, the newest first; Spark's errors as they are."""
    history = spark.sql(f"DESCRIBE HISTORY {reference} LIMIT {count}")
    return [
        Commit(version, _instant(millis))
        for version, millis in history.select("version", F.unix_millis("timestamp")).collect()
    ]


def latest_commit(spark: SparkSession, reference: str) -> Commit | None:
    """Return the latest commit, None for no Delta table or one whose history may not be read."""
    try:
        return next(iter(commits(spark, reference)), None)
    except Exception:  # Spark, Delta and the platforms have many ways to say so
        return None


def find_commit(spark: SparkSession, reference: str, version: int) -> Commit | None:
    """Return the commit of a version, None where the table has none or its log forgot it.

    Reads no more of the history than lies after that version.
    """
    count, found = 1, commits(spark, reference)
    # again when others committed between two looks
    while found and found[0].version - version >= count:
        count = found[0].version - version + 1
        found = commits(spark, reference, count)
    return next((commit for commit in found if commit.version == version), None)


def path_reference(path: str) -> str:
    """Return the SQL name of the Delta table in a folder, given as an absolute path or address."""
    return "delta.`" + path.replace("`", "``") + "`"


def literal(path: str) -> str:
    """Return a path as readers of plain files take it, to whom some characters are a pattern."""
    return _GLOB.sub(r"\\\1", path)


def files_of(spark: SparkSession, paths: str | list[str]) -> list[str]:
    """Return address, size and time of change of files, each as one text, sorted.

    One listing and one small job; the files are not opened.

    Parameters
    ----------
    spark : the session.
    paths : a folder or file; or addresses as ``DataFrame.inputFiles`` has them.
    """
    reader = spark.read.format("binaryFile")
    if isinstance(paths, list):
        # no partition columns from a list; and a Hive table says its folder in place of its files
        reader = reader.option("recursiveFileLookup", "true")
        paths = [literal(unquote(path)) for path in paths]
    else:
        paths = literal(paths)
    facts = reader.load(paths).select(
        "_metadata.file_path",
        "_metadata.file_size",
        F.unix_micros("_metadata.file_modification_time"),
    )
    return sorted("\0".join(map(str, row)) for row in facts.collect())


def all_there(spark: SparkSession, addresses: Iterable[str]) -> bool:
    """Whether all files are there, of addresses as ``DataFrame.inputFiles`` of Delta has them."""
    addresses = list(addresses)
    # Delta has them as they are, other sources encoded
    return _found(spark, addresses) or _found(spark, [unquote(one) for one in addresses])


def table_facts(spark: SparkSession, table: DataFrame) -> list[str]:
    """Return what tells whether a table still has the same rows, empty where it has no files.

    The commits of the Delta tables below it, for deletions need not change the list of their
    files; and address, size and time of all other files.

    Parameters
    ----------
    spark : the session.
    table : a view, or a table of any format.
    """
    files = table.inputFiles()
    roots: dict[str, Commit] = {}
    looks = 0
    for folder in sorted({_table_folder(file) for file in files}):
        # column mapping puts data files in folders of two letters below the table's
        for root in (folder.rpartition("/")[0], folder):
            if looks == _LOOKS or f"{folder}/".startswith(tuple(f"{r}/" for r in roots)):
                break
            looks += 1
            if commit := latest_commit(spark, path_reference(root)):
                roots[root] = commit
    rest = [file for file in files if not file.startswith(tuple(f"{r}/" for r in roots))]
    return [
        *(f"{root}\0{commit}" for root, commit in sorted(roots.items())),
        *(files_of(spark, rest) if rest else []),
    ]


def fingerprint(facts: Iterable[str]) -> str:
    """Return 16 hexadecimal digits that stand for texts in their order."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _found(spark: SparkSession, paths: list[str]) -> bool:
    try:
        _ = (
            spark.read.format("binaryFile").load([literal(path) for path in paths]).schema
        )  # Connect: on use
    except Exception as error:
        # what may not be looked at may still be there: reading tells
        return "PATH_NOT_FOUND" not in str(error)
    return True


def _table_folder(file: str) -> str:
    """Return the folder of a file above its partitions."""
    folder = file.rpartition("/")[0]
    while "=" in folder.rpartition("/")[2]:
        folder = folder.rpartition("/")[0]
    return folder


def _instant(millis: int) -> str:
    time = _EPOCH + timedelta(milliseconds=millis)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
