"""The figures that the README and the guide give in words, against the records that they are from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bdaudit.config.effort import EFFORTS

ROOT = Path(__file__).parents[1]
README, GUIDE = ROOT / "README.md", ROOT / ".github" / "guide"
COUNTS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FAMILIES = ("pixel", "style", "object", "fixed-image", "encoder", "closed-form")
PLAIN = ("average", "task-arithmetic", "ties", "dare")


def record(bench: str) -> dict[str, Any]:
    """What a bench recorded."""
    found: dict[str, Any] = json.loads((ROOT / f"tests/bench/results/{bench}.json").read_text(encoding="utf-8"))
    return found


def says(page: Path, *phrases: str) -> None:
    """Each phrase stands on the page, however its lines are broken."""
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert [phrase for phrase in phrases if phrase not in text] == []


def interval(rate: Mapping[str, float]) -> str:
    return f"[{100 * rate['low']:.0f}, {100 * rate['high']:.0f} %]"


def of(rate: Mapping[str, Any]) -> str:
    return f"{rate['hits']} of {rate['n']} {interval(rate)}"


def evasions() -> list[tuple[str, list[dict[str, Any]]]]:
    """Each attacker's trigger, and the runs of the last scan that was tried on it."""
    return [(cell["trigger"], list(list(cell["scans"].values())[-1].values())) for cell in record("evasion")["cells"].values()]


def test_attackers_who_know_the_scan() -> None:
    attackers = evasions()
    passing = sum(any(run["exit"] == 0 for run in runs) for _, runs in attackers)
    runs = [run for _, each in attackers for run in each]
    passed, nine = COUNTS[passing], COUNTS[len(attackers)]
    assert {len(each) for _, each in attackers} == {3}
    says(README, f"Of {nine} such models, {passed} passed at least one of three runs")
    says(README, f"Yes: {passed} of {nine} models passed at least one of three runs.")
    says(GUIDE / "reading-a-scan.md", f"of {nine} such models, {passed} passed at least one of three runs")
    named = sum(trigger in run["flagged"] for trigger, each in attackers for run in each)
    found = sum(run["exit"] == 1 for run in runs)
    passes = [run["passes"] for run in runs]
    says(
        GUIDE / "evidence.md",
        f"{passed.capitalize()} of the {nine} pass at least one of three runs",
        f"Of all {len(runs)} runs, {found} end in a finding and {named} name the trigger",
        f"took {min(passes):,} to {max(passes):,} passes for a list of 67",
    )


def test_the_whole_job() -> None:
    models = record("end_to_end")["models"]
    backdoored = [models[name] for name in FAMILIES]
    before, after = ([100 * found[stage]["asr"]["value"]["value"] for found in backdoored] for stage in ("before", "after"))
    assert {found["scan"]["rank"] for found in backdoored} == {1}
    says(
        README,
        f"on {COUNTS[len(backdoored)]} backdoored fixtures",
        f"It works in {min(before):.1f} to {max(before):.1f} % of pictures before the repair, "
        f"and in {min(after):.1f} to {max(after):.1f} % after.",
    )


def test_models_that_the_scan_had_not_seen() -> None:
    figures = record("power_joint")["figures"]
    pooled, works = figures["pooled"]["scan"], figures["pooled, where the attack works"]
    alarms, strong, recall = pooled["clean models falsely alarmed"], pooled["recall where ASR is 90 % or more"], works["scan"]["recall"]
    area = works["auroc"]["models"]
    says(README, f"found {recall['hits']} of {recall['n']} working triggers, and accused {alarms['hits']} of {alarms['n']} clean models")
    says(
        GUIDE / "evidence.md",
        f"finds {of(recall)} triggers that work, {of(strong)} of those that succeed in 90 %",
        f"falsely accuses {of(alarms)} clean models",
        f"AUROC over models is {area['value']:.3f} [{area['low']:.3f}, {area['high']:.3f}]",
    )


def test_false_alarms_in_the_guide() -> None:
    alarms = record("power_joint")["figures"]["pooled"]["scan"]["clean models falsely alarmed"]
    exits = [cell["exit"] for cell in record("null")["cells"].values()]
    none, one = (COUNTS[hits] for hits in (alarms["hits"], exits.count(1)))
    says(GUIDE / "reading-a-scan.md", f"{none.capitalize()} of {alarms['n']} clean models was accused, and {one} of {len(exits)} scans")


def test_the_round_before_and_the_rivals() -> None:
    figures = record("power_sharp")["figures"]
    alarms = figures["pooled"]["scan"]["clean models falsely alarmed"]
    earlier = record("power_fresh")["figures"]["pooled"]["scan"]["clean models falsely alarmed"]
    rows = [
        power_row("all 24", figures["pooled"]),
        power_row("the attack works (17)", figures["pooled, where the attack works"]),
        *(power_row(f"{name} (4)", figures[name]) for name in FAMILIES),
    ]
    page = (GUIDE / "evidence.md").read_text(encoding="utf-8")
    assert [row for row in rows if row not in page] == []
    strong = figures["pooled"]["scan"]["recall where ASR is 90 % or more"]
    says(
        GUIDE / "evidence.md",
        f"| ASR ≥ 90 % ({strong['n']}) | 90–100 | {of(strong)} |",
        f"None of the {alarms['n']} clean models is falsely accused {interval(alarms)}. In the round before it was {of(earlier)}",
    )


def power_row(name: str, group: Mapping[str, Any]) -> str:
    rates, area = [100 * rate for rate in group["models"]["asr"]], group["auroc"]
    ours = area["scan"]["models"]
    rivals = " | ".join(f"{area[rival]['models']['value']:.3f}" for rival in ("ftt", "navi", "ufid"))
    return (
        f"| {name} | {min(rates):.0f}–{max(rates):.0f} | {of(group['scan']['recall'])} "
        f"| {ours['value']:.3f} [{ours['low']:.3f}, {ours['high']:.3f}] | {rivals} |"
    )


def test_recovery() -> None:
    figures = record("recovery")["figures"]
    found = figures["found"]["where the attack works"]["found"]
    both, held = figures["both rounds"]["named pull beyond 6"], figures["held out"]["named pull beyond 5.1"]
    denoiser, encoder, clean = (both[name] for name in ("working, in the denoiser", "working, in the text encoder", "clean"))
    alone, none, nothing = (held[name] for name in ("working, in the denoiser", "working, in the text encoder", "clean"))
    assert encoder["hits"] == clean["hits"] == none["hits"] == nothing["hits"] == 0
    says(
        GUIDE / "without-a-trigger.md",
        f"among the first ten on {of(found)}".replace(" [", " models [", 1),
        f"are {denoiser['hits']} of {denoiser['n']} models with a backdoor in the denoiser {interval(denoiser)}, "
        f"none of {encoder['n']} with one in the text encoder, and none of {clean['n']} clean ones {interval(clean)}.",
        f"it was {alone['hits']} of {alone['n']}, none of {none['n']}, and none of {nothing['n']}",
    )


def test_exposure() -> None:
    less = record("exposure")["figures"]["null-target"]["groups"]["weak: ASR 50 to 90 %"]["both less plain, models"]
    coordinate = record("exposure")["as a coordinate"]["weak: ASR 50 to 90 %"]["0.1"]
    price, free = ([f"{of[name]:.3f}".replace("-", "−") for name in ("value", "low", "high")] for of in (less, coordinate))
    says(
        GUIDE / "without-a-trigger.md",
        f"no help with weak backdoors, {price[0]} [{price[1]}, {price[2]}] AUROC beside the plain scan",
        f"and {free[0]} [{free[1]}, {free[2]}] as one more coordinate",
    )


def test_merging() -> None:
    gains = []
    for key, cell in record("merging")["cells"].items():
        rates = {method: found["asr"] for method, found in cell["methods"].items()}
        counting = [name for name, rate in rates["task-arithmetic"].items() if rate["value"] >= 0.8 and key.endswith("amplified")]
        gains += [100 * (min(rates[method][name]["value"] for method in PLAIN) - rates["dam"][name]["value"]) for name in counting]
    says(
        GUIDE / "without-a-trigger.md",
        f"DAM leaves {min(gains):.0f} to {max(gains):.0f} points less of it than the best plain merge, "
        f"in {COUNTS[sum(gain > 0 for gain in gains)]} of {COUNTS[len(gains)]} cases",
    )


def test_cleaning() -> None:
    cells = record("cleaning")["cells"]
    long, short, alone = (cells[f"verb/{name}"] for name in ("vision-0.01-120", "vision", "vision, one canary"))
    after, ratio = long["after"], long["clip_ratio"]
    assert short["after"]["value"] == after["value"]
    assert "accuracy on held-out pairs kept" in short["exit"]
    says(
        GUIDE / "without-a-trigger.md",
        f"falls from {100 * long['before']['value']:.0f} to {100 * after['value']:.0f} % "
        f"[{100 * after['low']:.0f}, {100 * after['high']:.0f}]",
        f"with {ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] of the CLIP score",
        f"had passed and left {100 * alone['after']['value']:.0f} %",
    )


def test_the_disk_that_an_installation_takes() -> None:
    found = record("install")
    says(README, f"{found['GB']:.1f} GB of disk, {found['GB of libraries for a GPU']:.1f} GB of it GPU libraries")


def test_what_a_scan_costs_here() -> None:
    seconds = [model["scan"]["seconds"] for model in record("end_to_end")["models"].values()]
    says(README, f"| small fixture | {min(seconds):.0f} to {max(seconds):.0f} s, measured |")
    flux = record("full_size_transformers")["FLUX.1 dev"]["hours, projected"]["scan, built-in list"]
    says(README, f"{60 * flux:.0f} minutes on an H200, projected")
    passes = 5_000
    says(GUIDE / "workers.md", f"| list of 121 texts | about {passes:,} |")
    small, xl = (operations()[name] for name in ("Stable Diffusion 1.5", "Stable Diffusion XL"))
    minutes = [f"{60 * gpu(passes, each, 312):.0f} minute" for each in (small, xl)]
    hours = passes * record("full_size")["scan"]["full measurement"]["seconds a pass"]["median"] / 3600
    says(README, f"| Stable Diffusion 1.5 | {hours:.0f} hours, projected | {minutes[0]} on an A100, projected |")
    says(README, f"| Stable Diffusion XL | {hours * xl / small / 24:.0f} days, projected | {minutes[1]}s on an A100, projected |")


def operations() -> dict[str, float]:
    """Model → 10¹² operations a pass, of the guide's table."""
    text = (GUIDE / "workers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (Stable Diffusion [\w.]+), \d+ \| ([\d.]+) \|", text, re.MULTILINE)
    return {name: float(value) for name, value in rows}


def gpu(passes: float, operations_a_pass: float, peak: float) -> float:
    """Hours at 30 % of a GPU's peak, in 10¹² operations a second."""
    return passes * operations_a_pass / (0.3 * peak) / 3600


def test_the_projections_of_what_to_rent_follow_from_their_counts() -> None:
    text, row = (GUIDE / "workers.md").read_text(encoding="utf-8"), operations()
    projected = re.findall(r"^\| [^|]+ \| (?:about )?([\d,]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert len(projected) == 3
    for passes, *cells in projected:
        for model, cell in zip(("Stable Diffusion 1.5", "Stable Diffusion XL"), cells, strict=True):
            for shown, peak in zip(cell.split(", "), (125, 312, 989), strict=True):
                hours = gpu(float(passes.replace(",", "")), row[model], peak)
                if shown.startswith("<"):
                    assert hours < float(shown[2:]), (model, shown, hours)
                else:
                    digits = len(shown.partition(".")[2])
                    assert abs(hours - float(shown)) <= 0.51 * 10**-digits, (model, shown, hours)
    assert f"{record('full_size')['sweep']['passes']:,}" in text


def test_what_each_effort_spends() -> None:
    first, draws = ([getattr(EFFORTS[name], field) for name in ("low", "standard", "high")] for field in ("first", "draws"))
    says(
        GUIDE / "reading-a-scan.md",
        "`--effort low|standard|high` sets how many single steps each text gets: "
        f"{first[0]}, {first[1]} or {first[2]} at first, and {draws[0]}, {draws[1]} or {draws[2]} if it stands out.",
    )


@pytest.mark.parametrize("page", [README, *sorted(GUIDE.glob("*.md"))], ids=lambda page: page.name)
def test_no_page_names_a_record_that_is_not_there(page: Path) -> None:
    for name in re.findall(r"bench/results/(\w+)\.json", page.read_text(encoding="utf-8")):
        assert (ROOT / f"tests/bench/results/{name}.json").exists(), name
