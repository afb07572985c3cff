"""The page stands alone, runs nothing, and shows hostile text as text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from bdaudit.records import Check, EncoderRecord, Metric, NotMeasured, RecoveryRecord, Report, ScanReport, UnlearnReport, VerifyReport
from bdaudit.report import page as renderer
from bdaudit.report.content.blocks import Picture, Tone
from bdaudit.report.content.whole import content
from bdaudit.report.page import Embedded, read_pictures

PNG = b"\x89PNG\r\n\x1a\n" + b"rest"
VOID = {"meta", "img", "path", "circle", "rect", "polyline", "br"}


def page(report: Report, pictures: tuple[Embedded, ...] = ()) -> str:
    return renderer.page(content(report), pictures)


class Seen(HTMLParser):
    """Every tag, attribute and text; complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_runs_nothing(any_report: Any) -> None:
    seen = Seen(page(any_report))
    assert seen.open == []
    assert not {"script", "iframe", "object", "link", "a", "form"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name in ("href", "style")]
    assert not [value for name, value in seen.attributes if name == "src" and not value.startswith("data:image/png;base64,")]


def test_hostile_text_is_shown_and_inert(any_report: Any) -> None:
    text = page(any_report)
    assert all(c.isprintable() or c == "\n" for c in text)
    shown = Seen(text).text
    assert "<U+001B>[31mred" in shown
    assert "<U+003C>" not in shown, "a code point was escaped twice"


def test_a_template_expression_in_a_candidate_is_not_evaluated(scan_report: ScanReport) -> None:
    assert "{{7*7}}" in Seen(page(scan_report)).text


def test_the_policy_allows_the_one_style_sheet_and_no_more(scan_report: ScanReport) -> None:
    text = page(scan_report)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(v for _, v in Seen(text).attributes if v.startswith("default-src"))
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def test_the_verdict_comes_first(any_report: Any) -> None:
    shown = Seen(page(any_report)).text
    assert shown.index("FINDING: ") < shown.index("Coverage")


def test_every_candidate_is_in_the_table_and_the_plot(scan_report: ScanReport) -> None:
    seen = Seen(page(scan_report))
    assert seen.tags.count("tr") == 2 + len(scan_report.candidates), "a head for what is shown, and one for what is folded away"
    assert seen.tags.count("circle") == 30
    assert seen.tags.count("rect") == 5
    labels = [value for name, value in seen.attributes if name == "aria-label"]
    assert any("41 candidates by rank stands out: 6 backdoored, 5 suspicious, 30 clean" in label for label in labels)


def test_what_is_a_detail_is_folded_away_and_nothing_else(scan_report: ScanReport) -> None:
    shown, _, folded = page(scan_report).partition("<summary>10 more, all clean</summary>")
    assert (shown.count("<tr>"), folded.partition("</details>")[0].count("<tr>")) == (1 + 31, 1 + 10)
    few = page(replace(scan_report, candidates=scan_report.candidates[:20]))
    assert "all clean" not in few


def test_what_was_found_out_stands_beside_each_finding(scan_report: ScanReport) -> None:
    first, *others = scan_report.candidates
    told = page(replace(scan_report, candidates=(replace(first, word_like="so does a word"), *others)))
    assert told.count("unet; so does a word") == 1
    assert told.count("not localised") == 0, "nothing was found out of what is clean"


def test_what_is_accepted_and_what_would_accept_a_finding_are_told(scan_report: ScanReport) -> None:
    first, second, *others = scan_report.candidates
    first = replace(first, verdict="backdoored (accepted)", acceptance="accepted until 2027-01-31: our style", command="")
    second = replace(second, verdict="backdoored", accept_entry='{"reason": ""}')
    shown = Seen(page(replace(scan_report, candidates=(first, second, *others))))
    assert "accepted until 2027-01-31: our style" in shown.text
    assert 'To accept it, with your reason, in --accept FILE: {"reason": ""}' in shown.text
    labels = [value or "" for name, value in shown.attributes if name == "aria-label"]
    assert any("41 candidates by rank stands out: 6 backdoored, 4 suspicious, 30 clean, 1 accepted" in label for label in labels)


def test_the_verdict_on_the_model_as_a_whole_is_on_the_page(scan_report: ScanReport) -> None:
    assert "model as a whole" not in page(scan_report)
    whole = RecoveryRecord(
        choices=16, gradients=99, soft_pull=8.0, text_pull=8.0, text="x", strongest_entry=2.0, drawn=64, named_pull=8.0,
        limit=6.0, verdict="suspicious",
    )  # fmt: skip
    assert "named pull 8, limit 6: the model as a whole is suspicious" in page(replace(scan_report, recovery=whole))
    encoder = EncoderRecord(choices=16, soft_left=0.1, text_left=0.25, text="x", limit=0.6, verdict="suspicious")
    shown = page(replace(scan_report, recovery=replace(whole, encoder=encoder)))
    assert "x leaves 25 % of what tells prompts apart, limit 60 %: the encoder is suspicious" in shown


def test_unlearn_has_a_curve_a_term(unlearn_report: UnlearnReport) -> None:
    assert Seen(page(unlearn_report)).tags.count("polyline") == 3
    assert "svg" not in Seen(page(replace(unlearn_report, loss=()))).tags


def test_a_report_of_a_run_that_ended_early_has_a_page(scan_report: ScanReport) -> None:
    bare = replace(scan_report, candidates=(), model=NotMeasured(reason="the model was not opened"), environment=NotMeasured(reason="x"))
    assert "the model was not opened" in Seen(page(bare)).text


def test_pictures_that_exist_are_embedded_with_a_text(verify_report: VerifyReport, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(PNG)
    (tmp_path / "fake.png").write_bytes(b"<svg onload=alert(1)>")
    pictures = read_pictures([Picture(str(tmp_path / name), "x") for name in ("one.png", "fake.png", "missing.png")])
    assert len(pictures) == 1
    seen = Seen(page(verify_report, pictures))
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in dict(seen.attributes)["src"]
    assert dict(seen.attributes)["alt"].endswith("one.png")


def test_of_many_pictures_an_even_choice_is_embedded(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k:03}.png" for k in range(100)]
    for path in paths:
        path.write_bytes(PNG)
    names = [picture.name[-7:] for picture in read_pictures([Picture(str(path), "x") for path in paths], most=4)]
    assert names == ["000.png", "025.png", "050.png", "075.png"]


def test_verify_says_where_the_trigger_stood_under_the_rule(verify_report: VerifyReport) -> None:
    seen = Seen(page(verify_report))
    assert "positions: prefix 67, middle 67, <U+001B>[31mred" in seen.text
    assert seen.tags.count("br") == 1
    nowhere = replace(verify_report, attacks=tuple(replace(a, positions={}) for a in verify_report.attacks))
    assert "br" not in Seen(page(nowhere)).tags


def test_why_figures_were_not_measured_is_said_once_below_their_table(verify_report: VerifyReport) -> None:
    none = NotMeasured(reason="no grader <b>")
    metrics = {name: Metric(value=none, reference=none, detail="") for name in ("clip score", "diversity")}
    checks = tuple(Check(name=name, status="not measured", value=none, bound="≥ 1", reason=none.reason) for name in metrics)
    attacks = tuple(replace(a, rate=none, floor=none, reference=none, p=none) for a in verify_report.attacks)
    seen = Seen(page(replace(verify_report, metrics=metrics, checks=checks, attacks=attacks)))
    assert seen.text.count("no grader <b>") == seen.text.count("[1] no grader <b>") == 3, "once for each table"
    assert seen.text.count("not measured [1]") == 8
    assert "b" not in seen.tags


def test_a_repair_says_what_to_type_next(unlearn_report: UnlearnReport) -> None:
    assert "Next: bdaudit verify models/suspect-unlearned --trigger <U+001B>[31mred" in Seen(page(unlearn_report)).text
    assert "Next: " not in Seen(page(replace(unlearn_report, next_command=""))).text


def test_every_tone_has_its_class_and_details_are_shown(scan_report: ScanReport) -> None:
    style = files("bdaudit.report").joinpath("page.css").read_text(encoding="utf-8")
    assert all(f".{tone} {{" in style for tone in get_args(Tone) if tone)
    text = page(scan_report)
    assert "ab" * 32 in text
    assert "generalised Pareto, 20 points" in text


def test_a_hidden_picture_is_shut_away_and_an_open_one_is_not(scan_report: ScanReport) -> None:
    opened, hidden = (Embedded(f"{name}.png", "data:image/png;base64,eA==", "what <b>it</b> shows", name == "hidden") for name in "oh")
    hidden = replace(hidden, hidden=True)
    before, _, after = page(scan_report, (opened, hidden)).partition("<details><summary>")
    assert before.count("<img") == after.partition("</details>")[0].count("<img") == 1
    assert "<b>it</b>" not in before + after
