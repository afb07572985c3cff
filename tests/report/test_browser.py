"""The page in a real browser: nothing is asked of the network, nothing runs, everything shows, in light and in dark.

A browser that is missing fails these tests: ``apt-get install chromium-headless-shell``, or any Chromium on the PATH.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from bdaudit.records import Estimate, ReachRecord, VerifyReport
from bdaudit.report.deliver import write

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CONTRAST = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const lum = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => { for (; node; node = node.parentElement) {
    const c = rgb(getComputedStyle(node).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const texts = [...document.body.querySelectorAll('*')].filter(n => [...n.childNodes].some(c => c.nodeType === 3 && c.data.trim()))
    .filter(n => n.tagName !== 'title' && n.getClientRects().length);
  return texts.map(n => { const style = getComputedStyle(n), svg = n instanceof SVGElement;
    const [a, b] = [lum(rgb(svg ? style.fill : style.color)), lum(ground(n))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), n.tagName + ': ' + n.textContent.slice(0, 40)]; });
}"""


def executable() -> str:
    """The first browser that is there."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found, f"no browser: expected one of {', '.join(NAMES)} on the PATH; apt-get install {NAMES[0]}"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests here."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, and all that it did."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def opened(browser: Browser, path: Path, **context: Any) -> Opened:
    """``path`` in a fresh window; everything that it says and asks for is noted."""
    result = Opened(browser.new_context(**context).new_page())
    result.page.on("console", lambda message: result.said.append(message.text))
    result.page.on("pageerror", lambda error: result.said.append(str(error)))
    result.page.on("dialog", lambda dialog: (result.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
    result.page.on("request", lambda request: result.asked.append(request.url))
    result.page.goto(path.as_uri())
    return result


def faults(page: Page) -> list[str]:
    """What axe-core finds wrong for people who cannot see, point or tell colours apart; contrast over a shadow is left to ``CONTRAST``.

    The package of it is among the tests' own; without it, what asks for this is skipped.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python of the extra 'test' is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:80]}" for each in found for node in each["nodes"]]


@pytest.fixture
def pages(scan_report: Any, unlearn_report: Any, verify_report: VerifyReport, hostile: tuple[str, ...], tmp_path: Path) -> dict[str, Path]:
    """A page of each verb, with hostile texts wherever a text can stand, and two pictures."""
    for name in ("trigger-1.png", "quality.png"):
        Image.effect_noise((340, 600), 90).convert("RGB").save(tmp_path / name)
    rate = Estimate(value=0.5, low=0.3, high=0.7, n=16, method="Wilson 95 %")
    reach = tuple(ReachRecord(what=t, text=t, codepoints=("U+003C",), rate=rate, floor=rate, p=0.5) for t in hostile)
    verified = replace(
        verify_report,
        attacks=tuple(replace(a, reach=reach) for a in verify_report.attacks),
        images=tuple(str(tmp_path / name) for name in ("trigger-1.png", "quality.png")),
    )
    reports = {"scan": scan_report, "unlearn": unlearn_report, "verify": verified}
    for name, report in reports.items():
        write(report, tmp_path / f"{name}.html")
    return {name: tmp_path / f"{name}.html" for name in reports}


def test_nothing_is_asked_for_nothing_runs_and_nothing_is_complained_of(browser: Browser, pages: dict[str, Path]) -> None:
    for name, path in pages.items():
        seen = opened(browser, path)
        seen.page.wait_for_timeout(100)
        assert seen.said == [], name
        assert [url for url in seen.asked if not url.startswith("data:image/png;base64,")] == [path.as_uri()], name
        assert seen.page.locator("script, iframe, object, embed, link, [onerror], [onload]").count() == 0
        assert "<script>alert(1)</script>" in seen.page.inner_text("body"), "hostile text is shown as text"


def test_the_browser_would_have_noticed(browser: Browser, tmp_path: Path) -> None:
    """So that silence above means something."""
    (tmp_path / "bad.html").write_text("<script>alert(1); nonsense()</script><img src='http://localhost:9/x.png'>", encoding="utf-8")
    seen = opened(browser, tmp_path / "bad.html")
    seen.page.wait_for_timeout(100)
    assert any("dialog 1" in text for text in seen.said)
    assert any("nonsense" in text for text in seen.said)
    assert "http://localhost:9/x.png" in seen.asked


def test_the_pictures_show_and_have_words(browser: Browser, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["verify"]).page
    sizes = page.eval_on_selector_all("img", "images => images.map(i => [i.complete, i.naturalWidth, i.alt.length > 0])")
    assert sizes == [[True, 340, True]] * 2
    assert page.locator("svg").count() == 0
    drawn = opened(browser, pages["scan"]).page
    assert drawn.locator("svg circle").count() == 30
    assert drawn.locator("svg text.label").count() == 4
    assert "41 candidates" in (drawn.locator("svg").first.get_attribute("aria-label") or "")


def test_the_verdict_is_in_sight_at_once(browser: Browser, pages: dict[str, Path]) -> None:
    for path in pages.values():
        box = opened(browser, path, viewport={"width": 1280, "height": 720}).page.locator(".verdict").bounding_box()
        assert box
        assert box["y"] + box["height"] < 720


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(browser: Browser, pages: dict[str, Path], scheme: Any) -> None:
    grounds = set()
    for path in pages.values():
        page = opened(browser, path, color_scheme=scheme).page
        ratios = page.evaluate(CONTRAST)
        assert len(ratios) > 20
        assert [text for ratio, text in ratios if ratio < 4.5] == []
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, pages: dict[str, Path], scheme: Any) -> None:
    for name, path in pages.items():
        page = opened(browser, path, color_scheme=scheme).page
        page.eval_on_selector_all("details", "all => all.forEach(each => each.open = true)")
        assert faults(page) == [], name


def test_axe_would_find_something(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<title>bad</title><img src='x.png'><p style='color: #999'>pale</p>", encoding="utf-8")
    found = {fault.partition(":")[0] for fault in faults(opened(browser, tmp_path / "bad.html").page)}
    assert {"image-alt", "html-has-lang", "color-contrast"} <= found


WIDTHS = (360, 768, 1280)
CUT = """() => [...document.querySelectorAll('table, svg, img, p, h1, h2, li, dd, dt, summary')].filter(node => {
  if (!node.getClientRects().length || node.closest('svg') !== null && node.tagName !== 'svg') return false;
  const box = node.getBoundingClientRect(), held = node.closest('.scroll');
  if (held === null || held === node) return box.right > innerWidth + 1 || box.left < -1;
  return box.left + node.scrollWidth > held.getBoundingClientRect().left + held.scrollWidth + 1;
}).map(node => node.tagName + ': ' + node.textContent.slice(0, 40))"""
"""Everything that reaches beyond the page, or, in a region that scrolls, beyond what can be scrolled to."""


@pytest.mark.parametrize("width", WIDTHS)
def test_only_tables_and_plots_scroll_sideways_and_nothing_is_cut(browser: Browser, pages: dict[str, Path], width: int) -> None:
    for name, path in pages.items():
        page = opened(browser, path, viewport={"width": width, "height": 800}).page
        page.eval_on_selector_all("details", "all => all.forEach(each => each.open = true)")
        cues = page.eval_on_selector_all(".scroll", "all => all.map(each => getComputedStyle(each).backgroundAttachment)")
        assert set(cues) == {"local, local, scroll, scroll"}, f"{name}: no shadow says that there is more"
        reached = 0
        while reached < len(cues):
            page.keyboard.press("Tab")
            reached += page.evaluate("document.activeElement.className === 'scroll'")
            assert page.evaluate("document.activeElement !== document.body"), f"{name}: the keyboard does not reach what scrolls"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert page.evaluate(CUT) == [], name


def test_what_is_cut_would_be_found(browser: Browser, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["verify"], viewport={"width": 360, "height": 800}).page
    page.evaluate("document.querySelector('main').insertAdjacentHTML('afterbegin', '<table><tr><td>' + 'x'.repeat(99) + '</table>')")
    assert [text[:6] for text in page.evaluate(CUT)] == ["TABLE:"]


def test_every_picture_and_plot_has_words(browser: Browser, pages: dict[str, Path]) -> None:
    for name, path in pages.items():
        page = opened(browser, path).page
        said = page.eval_on_selector_all("img, svg", "all => all.map(each => each.alt || each.getAttribute('aria-label') || '')")
        assert all(len(words) > 10 for words in said), name
        regions = page.eval_on_selector_all("[role=region]", "all => all.map(each => each.getAttribute('aria-label'))")
        assert all(regions), name


def test_the_pictures_come_before_the_figures(browser: Browser, pages: dict[str, Path]) -> None:
    heads = opened(browser, pages["verify"]).page.locator("h2").all_inner_texts()
    assert heads[:3] == ["Pictures", "Checks", "Attack success rate"]
    assert heads[-3:] == ["Coverage", "Model and machine", "How to repeat it"]
