"""Places of tables, pages and files: local paths, and addresses that the storage system reads."""

from __future__ import annotations

import re
from pathlib import Path

from coarse_spark.errors import InvalidInputError

# two letters at least: C:/ is a drive
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_VOLUMES = "Volumes"  # /Volumes/catalog/schema/volume/… are files of a Unity Catalog
_SAME = {"s3a": "s3", "s3n": "s3", "abfs": "abfss", "wasb": "wasbs"}  # other clients of one store


def resolved(place: str) -> str:
    """Return the absolute local path of a place, or its address as it is.

    A local one may be written file:/… or file:///…, or begin with ~.

    Raises
    ------
    InvalidInputError : variables, which nothing fills in, the home of nobody, a file elsewhere, or
        a name that this system cannot encode.

    Examples
    --------
    >>> resolved("file:///data/out"), resolved("dbfs:/data/out")
    ('/data/out', 'dbfs:/data/out')
    """
    if "${" in place:
        raise InvalidInputError(f"'{place}' has a variable, which nothing fills in; write the path")
    scheme = _SCHEME.match(place)
    if scheme is None or scheme[1].lower() == "file":
        rest = place if scheme is None else place[len("file:") :]
        if scheme is not None and re.match(r"//[^/]", rest):
            raise InvalidInputError(f"'{place}' is on another machine; expected file:///…")
        local = rest if scheme is None else "/" + rest.lstrip("/")
        try:
            return str(Path(local).expanduser().resolve())
        except RuntimeError:
            raise InvalidInputError(f"'{place}': nobody here is called so") from None
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"'{place}': names of files are {error.encoding} here and lack "
                f"'{error.object[error.start]}'; set PYTHONUTF8=1"
            ) from None
    return place.rstrip("/") if _words(place[scheme.end() - 1 :]) else place


def is_local(place: str) -> bool:
    """Return whether a resolved place is a local path."""
    return _SCHEME.match(place) is None


def local_path(place: str) -> str | None:
    """Return the path under which local programs reach a resolved place, None where they cannot.

    Managed platforms show dbfs:/… as /dbfs/…, and a Volume as /Volumes/… whatever its address.

    Examples
    --------
    >>> local_path("dbfs:/pages"), local_path("dbfs:/Volumes/main/shop/pages")
    ('/dbfs/pages', '/Volumes/main/shop/pages')
    >>> local_path("s3://bucket/pages") is None
    True
    """
    if is_local(place):
        return place
    kind, *words = _parts(place)
    mounted = {"file": "/", "dbfs": "/dbfs/"}.get(kind)
    return None if mounted is None else mounted + "/".join(words)


def on_volume(place: str) -> bool:
    """Return whether a resolved place is on a Volume of a Unity Catalog."""
    return _parts(place)[:2] == ["file", _VOLUMES]


def mount(path: str) -> str | None:
    """Return what has to be there before a local path: a Volume or /dbfs; None for other paths.

    Who makes a folder of this name would write to the machine's own disk.

    Examples
    --------
    >>> mount("/Volumes/main/shop/files/pages"), mount("/dbfs/pages"), mount("/data/pages")
    ('/Volumes/main/shop/files', '/dbfs', None)
    """
    words = _words(path)
    depth = {_VOLUMES: 4, "dbfs": 1}.get(words[0], 0) if words else 0
    return "/" + "/".join(words[:depth]) if depth else None


def is_path(place: str) -> bool:
    """Return whether a place is a path or an address, not the name of a table in a catalog.

    Examples
    --------
    >>> is_path("responses.parquet"), is_path("./responses"), is_path("main.models.responses")
    (True, True, False)
    """
    return "/" in place or "\\" in place or place.endswith((".csv", ".parquet", ".delta"))


def overlap(one: str, other: str) -> bool:
    """Return whether two resolved places are one, or one lies in the other.

    Examples
    --------
    >>> overlap("s3://bucket/run", "s3a://bucket/run/tables/")
    True
    >>> overlap("/data/run", "/data/run-2")
    False
    """
    first, second = _parts(one), _parts(other)
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def _parts(place: str) -> list[str]:
    scheme = _SCHEME.match(place)
    if scheme is None:
        words = _words(place)
        # /dbfs/… is what local programs call dbfs:/…
        return words if words[:1] == ["dbfs"] else ["file", *words]
    name, words = scheme[1].lower(), _words(place[scheme.end() - 1 :])
    if name == "dbfs" and words[:1] == [_VOLUMES]:
        name = "file"  # the other name of a Volume
    return [_SAME.get(name, name), *words]


def _words(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
