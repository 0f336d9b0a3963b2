"""What a person can act on in the errors of Spark, Delta, Java and Python.

What they print is long, names classes, and tells the cause last, first or amid advice to others.
Where the cause is known, a sentence names the file, feature or host and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# what programs print of an error, "module.KindError: why" or the kind alone, and of its cause in
# Java, "Caused by: java.io.IOException: why"; packages are left out
_PYTHON = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Invalid|Exit|Interrupt)(?:: \S.*)?$")
_JAVA = re.compile(r"(?:Caused by)?: ((?:\w+\.)+[\w$]+: \S.*)")
_OURS = re.compile(r"coarse_spark\.(?:\w+\.)*\w+: ")
_PACKAGES = re.compile(r"(?<![\w./])(?:[\w$]+\.)+(?=[\w$]*(?:Error|Exception|Invalid)\b)")
_KIND = re.compile(r"^[\w$]*(?:Error|Exception): ")
# a name without its message, which the next line brings
_BROKEN = re.compile(
    r"((?:Error|Exception):|\[[A-Z][A-Z0-9_.]*\])[ \t]*\n\s*(?!at |Traceback|Caused by)(?=\S)"
)
# codes of states, which say nothing more
_STATE = re.compile(r"[.;]? *SQLSTATE: \w{5}\b;?")


def _file(found: re.Match[str]) -> str:
    why, place = found[1], re.sub(r"^file:/+", "/", found[2])
    if why == "FILE_NOT_EXIST":
        return f"the file {place} does not exist any more; restore it, or start anew without it"
    if why == "PARQUET_COLUMN_DATA_TYPE_MISMATCH":
        column = re.search(r"column \[([^\]]*)\]", found.string)
        named = f"'{column[1]}'" if column else "a column"
        return f"the file {place} has {named} in another type than the others; write it in one type"
    if "/_delta_log/" in place:
        return f"the log of the table is damaged at {place}; restore the file"
    return f"the file {place} is cut off, damaged or of another format; restore it, or take it away"


# patterns of known causes, and the sentence of each
_KNOWN: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\[FAILED_READ_FILE\.(\w+)\] Encountered error while reading file (.+?)\.(?=\s|$)", _file),
    (
        r"\[PARQUET_TYPE_ILLEGAL\] Illegal Parquet type: \w+ \((TIME\w*)\(NANOS",
        r"a column has the type \1 in nanoseconds, which Spark does not read; write it in "
        "microseconds, such as with coerce_timestamps='us' of pandas' to_parquet",
    ),
    (
        r"\[PARQUET_TYPE_ILLEGAL\] Illegal Parquet type: ([^.\n]*)",
        r"a column has the type \1, which Spark does not read; write it as another",
    ),
    (
        r"\[DELTA_UNSUPPORTED_FEATURES_FOR_\w+\][^\n]* \"([^\"]*)\": ([^\n]*?)\.?$",
        r"it needs features that Delta Lake \1 does not have: \2; use a later version of it, or "
        "drop them from the table",
    ),
    (
        r"\[UNABLE_TO_INFER_SCHEMA\][^\n]* for (\w+)",
        r"there is no \1 file in it; name the folder that holds the files",
    ),
    (
        r"No FileSystem for scheme \"?(\w+)",
        r"this Spark has no connector for \1:// addresses; add its package to spark.jars.packages",
    ),
    (
        r"ClassNotFoundException: Class org\.apache\.hadoop\.fs\.(\w+)\.\S* not found",
        r"this Spark has no connector \1 for such addresses; add its package to "
        "spark.jars.packages",
    ),
    (
        r"UnknownHostException: ([\w.-]+)",
        r"there is no host \1; check the address, and that the network reaches it",
    ),
    (
        r"(Python worker exited unexpectedly \(crashed\))[^\n]*",
        r"\1, mostly for want of memory; give executors more, or fewer cores each",
    ),
)


def first_cause(message: str) -> str:
    """Return what a person can act on: a known cause, else the last of Python, else of Java.

    Parameters
    ----------
    message : of an error, with stack traces and the errors that it wraps.

    Examples
    --------
    >>> first_cause("ParseException: \\n[PARSE_SYNTAX_ERROR] Syntax error at '.'. SQLSTATE: 42601")
    "ParseException: [PARSE_SYNTAX_ERROR] Syntax error at '.'"
    """
    whole = _BROKEN.sub(r"\1 ", _BROKEN.sub(r"\1 ", message))  # of a kind, then of a condition
    for pattern, sentence in _KNOWN:
        found = re.search(pattern, whole, re.MULTILINE)
        if found is not None:
            return found.expand(sentence) if isinstance(sentence, str) else sentence(found)
    lines = [line.strip() for line in whole.splitlines() if line.strip()]
    python = [line for line in lines if _PYTHON.match(line)]
    chosen = [line for line in python if "PythonException" not in line and "Py4J" not in line]
    # the kind of an error without its message tells little: remote stack traces have such lines
    chosen.sort(key=lambda line: ": " in line)
    java = [cause[1] for line in lines if (cause := _JAVA.match(line))]
    told = [*lines[:1], *java, *chosen]  # the least telling first
    return _STATE.sub("", _PACKAGES.sub("", _OURS.sub("", told[-1]))) if told else "unknown cause"


def without_kind(cause: str) -> str:
    """Return a cause without the kind of error before it.

    Examples
    --------
    >>> without_kind("AnalysisException: [PATH_NOT_FOUND] Path does not exist: /data")
    '[PATH_NOT_FOUND] Path does not exist: /data'
    """
    return _KIND.sub("", cause, count=1)
