"""What leaves the program: values without control characters, texts without secrets."""

# ruff: noqa: E501  # a text a line

from __future__ import annotations

import hashlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarse_spark.text import is_secret, printable, redact, shown

CONTROLS = "".join(
    chr(code)
    for code in range(0x11000)
    if unicodedata.category(chr(code)) in ("Cc", "Cs", "Zl", "Zp")
    or unicodedata.bidirectional(chr(code)) in ("LRE", "RLE", "PDF", "LRO", "RLO")
    or unicodedata.bidirectional(chr(code)) in ("LRI", "RLI", "FSI", "PDI")
    or unicodedata.name(chr(code), "").endswith(("TO-RIGHT MARK", "TO-LEFT MARK", "LETTER MARK"))
)


def test_every_control_character_is_escaped() -> None:
    assert len(CONTROLS) > 65 + 14
    text = shown(f"a{CONTROLS}b")
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith(r"a\x00\x01")
    assert shown("\x1b[2J\x7f\x9b\n\t\u202e\u2028") == r"\x1b[2J\x7f\x9b\x0a\x09\u202e\u2028"


def test_what_people_write_stays_as_it_is() -> None:
    for value in ("Zoë", "日本", "עברית", "👩\u200d🔬", "C:\\new", "a 'b' \"c\"", ""):
        assert shown(value) == value == printable(value)
    assert [shown(value) for value in (7, 1.5, True, None)] == ["7", "1.5", "True", "null"]


def test_private_values_are_hashed_alike_everywhere() -> None:
    assert shown("7", private=True) == shown(7, private=True)
    assert shown(7, private=True) == "#" + hashlib.sha256(b"7").hexdigest()[:8]
    assert shown("Zoë\x1b", private=True) != shown("Zoë", private=True)
    assert shown(None, private=True) == "null"


@given(st.text(st.characters(codec=None)))
def test_printable_texts_keep_their_lines_and_are_printable_again(text: str) -> None:
    found = printable(text)
    assert not set(found) & (set(CONTROLS) - {"\n", "\t"})
    assert found.count("\n") == text.count("\n")
    assert printable(found) == found


# (a text, what is left of it)
SECRETS = [
    ("read s3a://_me:p4ss@bucket/units now", "read s3a://***@bucket/units now"),
    ("s3a://_me:a/b+c@bucket/units", "s3a://***@bucket/units"),
    ("redis://:p4ss@host:6379/0", "redis://***@host:6379/0"),
    ("https://_u:1234@host/x", "https://***@host/x"),
    ("https://_u:p@ss@host/x", "https://***@host/x"),
    ("jdbc:postgresql://localhost:5432/db?user=u&password=p4ss", "jdbc:postgresql://localhost:5432/db?user=u&password=***"),
    ("jdbc:sqlserver://localhost;user=u;password=p4ss;x=1", "jdbc:sqlserver://localhost;user=u;password=***;x=1"),
    ("https://bucket/x?sv=2022&se=2026-01-01&sig=a%2Fb%3D", "https://bucket/x?***"),
    ("https://bucket/x?X-Amz-Date=2&X-Amz-Signature=ab#part", "https://bucket/x?***#part"),
    ("https://localhost/x?version=3&access_token=p4ss&y=1", "https://localhost/x?version=3&access_token=***&y=1"),
    ("fs.azure.account.key.acc.dfs.core.windows.net=cDRzcw==", "fs.azure.account.key.acc.dfs.core.windows.net=***"),
    ("--conf spark.hadoop.fs.s3a.access.key=AKIA x", "--conf spark.hadoop.fs.s3a.access.key=*** x"),
    ("-Djavax.net.ssl.trustStorePassword=p4ss -Xmx1g", "-Djavax.net.ssl.trustStorePassword=*** -Xmx1g"),
    ("PWD='p4 ss' and password: p4ss", "PWD=*** and password: ***"),
    ("found {'a.token': 'p4 ss', 'b': 1}", "found {'a.token': ***, 'b': 1}"),
    ('{"api_key":"p4ss","b":1}', '{"api_key":***,"b":1}'),
    ("Authorization: Bearer eyJ.p4ss.x=", "Authorization: ***"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "left"), SECRETS)
def test_secrets_are_redacted(text: str, left: str) -> None:
    assert redact(text) == left
    assert redact(left) == left
    assert "p4ss" not in printable(f"{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "abfss://bucket@account.dfs.core.windows.net/units?versionAsOf=3",
        "http://localhost:4040/jobs and mail to me@host",
        "run.yml:3: not valid YAML: while scanning for the next token: found character '%'",
        "menu.exclude: 'signature == 2' uses the unknown name 'signature'",
        "the key (run_id, unit_id) would be repeated or null",
        "experiment: 2 unit ids occur in 4 rows; such as key=3/market=CH (2 times)",
        "step 'fit' done in 3.1 s",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert printable(text) == text


def test_settings_that_are_secret() -> None:
    secret = [
        "spark.hadoop.fs.s3a.secret.key",
        "spark.hadoop.fs.s3a.access.key",
        "spark.hadoop.fs.azure.account.key.a.dfs.core.windows.net",
        "spark.hadoop.fs.azure.sas.units.a.blob.core.windows.net",
        "spark.hadoop.fs.gs.auth.service.account.private.key",
        "spark.ssl.keyPassword",
        "spark.databricks.token",
        "spark.x.accessKey",
    ]
    assert [key for key in secret if not is_secret(key)] == []
    for key in ("spark.sql.shuffle.partitions", "spark.hadoop.fs.s3a.endpoint", "spark.key.size"):
        assert not is_secret(key)
