"""The page, and the page in a real browser: it sorts and filters, asks for nothing, and runs nothing of a report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from bdaudit.errors import ExitCode
from bdaudit.records import Exit, ScanReport
from bdaudit.report.fleet.fleet import fleet_of
from bdaudit.report.fleet.page import link, page, rate_lines
from bdaudit.report.fleet.policy import FleetPolicy
from bdaudit.report.fleet.read import read_reports
from tests.report.fleet.reports import clean, fleet_reports, scan, unaudited, write
from tests.report.test_browser import CONTRAST, executable, faults, opened

NOW = datetime(2026, 1, 12, tzinfo=UTC)


@pytest.fixture
def written(scan_report: ScanReport, verify_report: Any, hostile: tuple[str, ...], tmp_path: Path) -> Path:
    """130 reports: hostile names and texts in some, every verdict, one cut file."""
    folder = tmp_path / "in"
    name = " ".join(hostile) + "</script><script>alert(2)</script>"
    write(scan(scan_report, name, *[(text, 1e-6, "backdoored") for text in hostile], code=ExitCode.FINDING), folder / "hostile.json")
    write(scan(scan_report, "twin", (hostile[4], 1e-3, "backdoored"), code=ExitCode.FINDING, digest=name), folder / "twin.json")
    write(scan(scan_report, "same text", (hostile[4], 0.02, "suspicious")), folder / "text.json")
    write(verify_report, folder / "javascript:alert(3).json")
    write(replace(verify_report, exit=replace(verify_report.exit, code=0, name="pass")), folder / "verify-good.json")
    write(unaudited(scan_report, "half"), folder / "half.json")
    for k, code in enumerate((ExitCode.REFUSED, ExitCode.ERROR, ExitCode.INTERRUPTED)):
        write(clean(scan_report, f"silent {k}", code=code), folder / f"silent-{k}.json")
    for k in range(120):
        write(clean(scan_report, f"model-{k}", p=1 - k / 200), folder / f"{k}.json")
    (folder / "cut.json").write_text('{"command": "scan", ')
    (folder / "twin.html").write_text("x")
    target = tmp_path / "fleet.html"
    target.write_text(page(fleet_of(read_reports([folder]), FleetPolicy(), NOW), target), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests here."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        yield browser
        browser.close()


def test_nothing_of_a_report_can_end_its_block_or_begin_a_tag(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "alert(2)" in text
    data = text.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&") & set(data)
    assert data.isascii()
    assert re.search(r"[\x00-\x08\x1b\u202e\u2028\u200b]", text) is None


@pytest.mark.parametrize("code", [ExitCode.PASS, ExitCode.FINDING, ExitCode.INCONCLUSIVE, ExitCode.ERROR])
def test_only_a_pass_and_a_finding_are_not_called_no_pass(scan_report: ScanReport, tmp_path: Path, code: ExitCode) -> None:
    fleet = fleet_of(fleet_reports(clean(scan_report, "a")), FleetPolicy(), NOW)
    text = page(replace(fleet, exit=Exit.of(code, "so")), tmp_path / "fleet.html")
    assert ("This is no pass" in text) is (code not in (ExitCode.PASS, ExitCode.FINDING))
    assert ("Take them out of use" in text) is (code == ExitCode.FINDING)


def test_links_are_relative_whatever_a_file_is_called(tmp_path: Path) -> None:
    out = tmp_path / "fleet.html"
    assert link(str(tmp_path / "javascript:alert(3).json"), out) == "./javascript%3Aalert%283%29.json"
    assert link(str(tmp_path.parent / "a b.json"), out) == "../a%20b.json"
    (tmp_path / "scan.html").write_text("x")
    assert link(str(tmp_path / "scan.json"), out) == "./scan.html"
    assert link(str(tmp_path / "fleet.json"), out) == "./fleet.json", "the page itself is nobody's report"


def test_what_the_fleets_size_makes_of_its_alarms(written: Path) -> None:
    fleet = fleet_of(read_reports([written.parent / "in"]), FleetPolicy(), NOW)
    lines = " ".join(rate_lines(fleet.rate))
    assert "1 of 126 models with a p raise an alarm" in lines
    assert "1.26 would be expected" in lines
    assert "below 0.00826 is more than the controls can count" in lines


def test_it_asks_for_nothing_runs_nothing_and_shows_hostile_text_as_text(browser: Browser, written: Path) -> None:
    seen = opened(browser, written)
    seen.page.wait_for_timeout(100)
    assert seen.said == []
    assert seen.asked == [written.as_uri()]
    assert seen.page.locator("script:not([type])").count() == 1
    assert seen.page.locator("iframe, object, embed, link, img, [onerror], [onload]").count() == 0
    assert "<script>alert(1)</script>" in seen.page.inner_text("#table tbody")
    links = seen.page.eval_on_selector_all("#table a", "all => all.map(a => a.getAttribute('href'))")
    assert all(href.startswith("./in/") for href in links)
    assert "./in/twin.html" in links


def shown(page: Any) -> list[str]:
    return [str(text) for text in page.locator("#table tbody td:nth-child(2) a").all_inner_texts()]


def test_it_sorts_filters_and_turns_pages(browser: Browser, written: Path) -> None:
    page = opened(browser, written).page
    said = page.locator("#shown")
    assert said.inner_text() == "129 of 129 reports"
    assert page.locator("#table tbody tr").count() == 100
    assert page.locator("#table tbody tr").first.locator("td").first.inner_text() == "backdoored"
    page.click("#after")
    assert page.inner_text("#at") == "page 2 of 2"
    assert page.locator("#table tbody tr").count() == 29
    page.click("th[data-key=model] button")
    assert page.get_attribute("th[data-key=model]", "aria-sort") == "ascending"
    assert shown(page).index("model-2") < shown(page).index("model-10"), "figures in names count as figures"
    page.click("th[data-key=p] button")
    assert page.locator("#table tbody tr td:nth-child(5)").first.inner_text() == "2.0e-06*", "two scans of one model"
    page.click("th[data-key=p] button")
    assert page.get_attribute("th[data-key=p]", "aria-sort") == "descending"
    assert page.get_attribute("th[data-key=model]", "aria-sort") is None
    page.fill("#search", "MODEL-11")
    assert said.inner_text() == "11 of 129 reports"
    page.fill("#search", "")
    page.click(".chip[data-verdict=refused]")
    page.click(".chip[data-verdict=failed]")
    assert said.inner_text() == "2 of 129 reports"
    page.select_option("#verb", "verify")
    assert said.inner_text() == "1 of 129 reports"
    page.fill("#search", "nothing is called so")
    assert page.inner_text("#table tbody") == "No report fits these filters."


def test_the_worst_rows_are_there_without_the_script(browser: Browser, written: Path) -> None:
    page = opened(browser, written, java_script_enabled=False).page
    assert page.locator("#table tbody tr").count() == 100
    assert "100 worst of 129" in page.inner_text("noscript")
    assert not page.locator("#tools").is_visible()
    assert "the model as a whole" not in page.inner_text("#table")


def test_the_other_tables(browser: Browser, written: Path) -> None:
    text = opened(browser, written).page.inner_text("main")
    assert "Models of the same tensors" in text
    assert "Texts found in several models" in text
    assert "Families and shapes" in text
    silent = text.split("Not audited")[1]
    for name in ("cut.json", "silent 0", "half", "unet/x.bin: a pickle"):
        assert name in silent


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(browser: Browser, written: Path, scheme: Any) -> None:
    ratios = opened(browser, written, color_scheme=scheme).page.evaluate(CONTRAST)
    assert len(ratios) > 300
    assert [text for ratio, text in ratios if ratio < 4.5] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_only_tables_scroll_sideways(browser: Browser, written: Path, width: int) -> None:
    page = opened(browser, written, viewport={"width": width, "height": 800}).page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_browser_would_have_run_a_script_without_its_hash(browser: Browser, written: Path) -> None:
    """So that silence above means something: the policy, not luck, keeps a foreign script from running."""
    text = written.read_text(encoding="utf-8")
    foreign = written.with_name("foreign.html")
    foreign.write_text(text.replace("</main>", "<script>alert(4)</script></main>"), encoding="utf-8")
    seen = opened(browser, foreign)
    seen.page.wait_for_timeout(100)
    assert not any("dialog" in said for said in seen.said)
    assert any("Content Security Policy" in said for said in seen.said)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, written: Path, scheme: Any) -> None:
    assert faults(opened(browser, written, color_scheme=scheme).page) == []
