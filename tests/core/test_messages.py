"""What people write is told as docs/messages.md says, and the page says what is told.

COARSE_SPARK_WRITE_PINS=1 python -m pytest tests/core/test_messages.py      writes the page anew
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from messages import TOPICS, Topic, page

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"
ROWS = [(topic, *row) for topic in TOPICS if topic.told is not None for row in topic.rows]


@pytest.mark.parametrize(("topic", "written", "told"), ROWS, ids=[row[1] for row in ROWS])
def test_what_is_written_is_told(topic: Topic, written: str, told: str) -> None:
    assert topic.told is not None
    assert topic.told(written) == told


def test_the_page_is_that_of_the_rows() -> None:
    if os.environ.get("COARSE_SPARK_WRITE_PINS"):
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()
