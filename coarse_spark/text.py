"""Text on its way to a reader: values of tables, and everything that leaves the program.

A value in a message goes through ``shown``, where the message is made. Terminal, log, report and
the table ``runs`` take ``printable`` texts: that holds whatever a message is made of, also one of
Spark or Java. Secrets are known by the names of their keys and by their place in addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

REDACTED = "***"

# C0, DEL and C1; what ends lines or changes the direction of writing; halves of characters, which
# no terminal can encode
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# beyond Spark's own default, secret|password|token|access[.]?key
_TELLING = (
    r"(?:secret|passw(?:or)?d|passphrase|\bpwd\b|token|credential|authorization|signature"
    r"|(?:access|account|api|private|sas|shared|encryption)[._-]?key"
    r"|(?<![a-z])(?:sig|sas)(?![a-z]))"
)
_TELLING_KEY = re.compile(_TELLING, re.IGNORECASE)
# a whole word, taken once and for all: long texts shall not cost the square of their length
_KEY = rf"(?<![\w.$%-])(?=[\w.$%-]*{_TELLING})[\w.$%-]++"
_QUOTED = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_DONE = r"""\*\*\*(?![^\s,;&"')\]}])"""
_VALUE = rf"""(?:{_DONE}|{_QUOTED}|(?:Bearer|Basic)\s+[^\s"']+|[^\s&;"']+)"""
# what programs put in quotes, and numbers; names of columns stand between backticks
_LITERAL = re.compile(rf"""{_QUOTED}|(?<![\w`])[-+]?\d[\w.:+-]*""")

_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # a signed address: its dates and scope change with every signature, so all of it goes
        (r"""\?(?=[^\s"'<>#]*(?<![a-z])(?:sig|signature)=)[^\s"'<>#]+""", f"?{REDACTED}"),
        # //user:password@host; a password may hold a slash, but what looks like a port is none
        (
            r"""//[^\s/@:"']{0,200}:(?:[^\s/"']{0,999}|(?!\d+/)[^\s@"']{0,999})@""",
            f"//{REDACTED}@",
        ),
        # key=value, and 'key': 'value' of a mapping
        (rf"""({_KEY}(?:\s*=(?!=)\s*|["']\s*:\s*)){_VALUE}""", rf"\g<1>{REDACTED}"),
        # a header, and the form that people write
        (rf"((?:authorization|passw(?:or)?d)\s*:\s*){_VALUE}", rf"\g<1>{REDACTED}"),
    )
)


def counted(number: float, noun: str, plural: str = "") -> str:
    """Return a number of things with the noun that goes with it.

    Parameters
    ----------
    number : how many; anything after the decimal point is left out.
    noun : of one.
    plural : by default the noun with an s.

    Examples
    --------
    >>> counted(1, "unit"), counted(1200, "stratum", "strata")
    ('1 unit', '1,200 strata')
    """
    return f"{number:,.0f} {noun if number == 1 else plural or f'{noun}s'}"


def shown(value: object, *, private: bool = False) -> str:
    r"""Return a value of a table as messages show it: without control characters.

    Parameters
    ----------
    value : of any type; None is shown as null.
    private : show the first 8 hex digits of the SHA-256 of its text instead.

    Examples
    --------
    >>> print(shown("Zoë\x1b[2J"), shown(7, private=True), shown(None, private=True))
    Zoë\x1b[2J #7902699b null
    """
    if value is None:
        return "null"
    text = str(value)
    if private:
        return f"#{sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return _CONTROL.sub(_escaped, text)


def shown_parts(names: Sequence[str], values: Iterable[object], *, private: bool = False) -> str:
    """Return a combination of values as messages show it, such as ``market=CH/product=3``."""
    return "/".join(
        f"{shown(name)}={shown(value, private=private)}"
        for name, value in zip(names, values, strict=True)
    )


def printable(text: str) -> str:
    """Return a text without secrets and without control characters but newline and tab."""
    return redact(_CONTROL.sub(lambda c: c[0] if c[0] in "\n\t" else _escaped(c), text))


def without_values(message: str) -> str:
    """Return an error message of another program without what may be a value of a table.

    Examples
    --------
    >>> without_values("The value 'Zoë' or 12.5e3 of the column `age2` cannot be cast")
    'The value … or … of the column `age2` cannot be cast'
    """
    return _LITERAL.sub("…", message)


def is_secret(key: str) -> bool:
    """Return whether the value of a setting of this name has to stay secret."""
    return _TELLING_KEY.search(key) is not None


def redact(text: str) -> str:
    """Return a text with credentials of addresses and values of secret keys as ``***``.

    Examples
    --------
    >>> redact("https://_me:pass@host/a?sig=b and fs.s3a.secret.key=c")
    'https://***@host/a?*** and fs.s3a.secret.key=***'
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _escaped(control: re.Match[str]) -> str:
    code = ord(control[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
