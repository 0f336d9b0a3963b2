"""The page in a real browser: phone, desktop and paper, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_report import arms_content, field_content, with_result
from test_report_rule import ruled

from coarse_spark.report.content import ReportContent
from coarse_spark.report.page import render_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "headless=new",
    "no-sandbox",  # a container's tests may run as root
    "disable-gpu",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)
WIDTHS = {"phone": (390, "screen"), "desktop": (1_280, "screen"), "paper": (794, "print")}
PAGES = {
    "one dimension": lambda: field_content(1),
    "two dimensions": lambda: field_content(2),
    "arms": arms_content,
    # a line of SQL as long as those of deep trees
    "a rule": lambda: longer(ruled(by_rule=True)),
}
# what stands out of the page where nothing scrolls, and what a reader who does not see is not told
LOOKS = """
const paper = matchMedia('print').matches;  // on which nothing scrolls
const moves = e => !paper && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
const scrolls = e => e.closest('svg') || moves(e);
const boxed = e => e && (scrolls(e) || boxed(e.parentElement));
const named = e => e.getAttribute('alt') || e.getAttribute('aria-label') || e.querySelector('title')
  || e.getAttribute('aria-labelledby') || e.getAttribute('aria-hidden');
const shown = e => e.tagName + ': ' + (e.textContent || '').trim().slice(0, 40);
return {
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  out: [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !boxed(e)).map(shown),
  unnamed: [...document.querySelectorAll('img, svg')].filter(e => !named(e)).map(shown),
  pictures: document.querySelectorAll('img, svg').length,
};
"""

pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="chromium and chromedriver are not installed"
)


def longer(content: ReportContent) -> ReportContent:
    """Return the content with a line of SQL in its rule that is some pages wide."""
    rule = f"{content.assigned.rule} -- {'a > 1 AND ' * 60}"
    return with_result(content, "assigned", rule=rule)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for option in OPTIONS:
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = Chrome(options=options, service=Service(str(DRIVER)))
    yield opened
    opened.quit()


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_off_unnamed_or_complained_of(
    browser: Any, name: str, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_report(PAGES[name]()), encoding="utf-8")
    for scheme in ("light", "dark"):
        for place, (width, media) in WIDTHS.items():
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"media": media, "features": features}
            )
            browser.get(page.as_uri())
            found = browser.execute_script(LOOKS)
            assert found["pictures"] > 0, (place, scheme)
            assert (found["wide"], found["out"], found["unnamed"]) == (0, [], []), (place, scheme)
            assert browser.get_log("browser") == [], (place, scheme)
