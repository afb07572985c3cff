"""What ``scan --sweep recovery`` names, with no list: ``python tests/bench/recovery.py --work FOLDER [NAME …]``.

FOLDER is the power study's (``python -m tests.bench.power --work FOLDER``). On every fixture and model of the study whose trigger is one
entry or one character: the trigger's rank among the texts named, taken from the three kinds in turn (the first of each, the second of
each, …), and by their standing on other prompts and noise; where the first is beyond ten, the attack success of the first three of its
kind (40 pictures each, the floor beside). On the clean ones: the pull of the strongest soft choice and text. Constants come from
``clean``, ``dev-style`` and ``dev-pixel`` alone; that characters are ranked by the shift alone was settled on ``dev-pixel`` after an
earlier ranking had missed ``style``, and the order of standing was added after two models' results. Half a minute of one core a model;
kept model by model in ``results/recovery.json``. ``--table`` only prints.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.config import ScanConfig, VerifyConfig  # noqa: E402
from bdaudit.config.effort import EFFORTS  # noqa: E402
from bdaudit.kept_state import State  # noqa: E402
from bdaudit.measure.draws import make_draws  # noqa: E402
from bdaudit.models.load import load  # noqa: E402
from bdaudit.models.tokens import content_ids  # noqa: E402
from bdaudit.progress import silent  # noqa: E402
from bdaudit.scan.context import ScanContext  # noqa: E402
from bdaudit.scan.multiplicity import CandidateGroup  # noqa: E402
from bdaudit.scan.sweep.recovery import DRAWN, NAMED_PULL, ROUNDS, recover  # noqa: E402
from bdaudit.scan.sweep.screen import screened  # noqa: E402
from bdaudit.scan.sweep.standing import standings  # noqa: E402
from bdaudit.scan.sweep.swept_texts import Probe, vocabulary  # noqa: E402
from bdaudit.untrusted.inspect import inspect  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from bdaudit.verify.run import run_verify  # noqa: E402
from tests.bench.end_to_end import FIXTURES, Model, graded_on, open_model, target  # noqa: E402
from tests.bench.power.figures import auroc, rate_of  # noqa: E402
from tests.bench.recording import rounded, stamp  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "recovery.json"
DEVELOPMENT = ("clean", "dev-style", "dev-pixel")
TWINS = ("pixel", "style", "encoder", "object", "benign")
FIRST, TRIED, PICTURES = 10, 3, 40
SET_BEFORE = 5.1
"""The limit on the named pull that was set before the second round's models were searched, between the clean ones of the first round
(5.07 at most) and those whose attack works (10 of 12 beyond 5.15). The scan's own, ``NAMED_PULL``, was moved up after the second round, in
which three clean models came as near as 5.09: to where no model of either round lies, 7.2 being the next above."""
HELD_OUT = ("e-", "f-")
"""Bases of the second round, none of whose models had been searched when the limit was set."""
LIFT = 0.5
"""An attack works where it succeeds so much more often with the trigger than without."""


def models(work: Path) -> dict[str, tuple[Model, dict[str, Any]]]:
    """Name → model, and what the study measured of its attack: development, fixtures, then the study's; phrases are left out."""
    built = [name for name in DEVELOPMENT if name == "clean" or (FIXTURES / "dev" / name).exists()]
    found: dict[str, tuple[Model, dict[str, Any]]] = {name: (open_model(name), {}) for name in (*built, *TWINS)}
    for path in sorted((work / "models").glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        truth = told["twin"] | {"name": told["name"]}
        if " " not in truth["trigger"]:
            kept = work / "results" / f"{path.stem}.attack.json"
            attack = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
            found[path.stem] = (Model(path.stem, path.with_suffix(""), truth), attack)
    return found


def measured(model: Model, attack: dict[str, Any]) -> dict[str, Any]:
    """One model's row."""
    began, prompts = time.process_time(), read_texts(FIXTURES / "prompts.txt")
    suspect = load(inspect(model.path), device="cpu", dtype="float32")
    config = ScanConfig(model=model.path, sweeps=("recovery",))
    families = recover(ScanContext(suspect, None, State(None, ""), silent, config.seed), config, prompts)  # type: ignore[arg-type]
    record, passes = families[0].recovery, suspect.forward_passes
    assert record is not None
    seconds = time.process_time() - began
    order = alternating(families)
    row = {"family": model.truth.get("family", "clean"), "seconds": seconds, "passes": passes, **asdict(record)}
    row |= {"named": [list(family.texts) for family in families]}
    row["asr"] = {key: attack[key]["value"] for key in ("asr", "floor")} if attack else {}
    if not model.trigger:
        return row
    rank = order.index(model.trigger) + 1 if model.trigger in order else 0
    ids = content_ids(suspect.tokenizer, model.trigger)
    row |= {"trigger": ascii(model.trigger), "entries": len(ids), "rank": rank}
    kind = families[0 if len(ids) == 1 else 1 if len(model.trigger) == 1 else 2]
    fired = {} if 0 < rank <= FIRST else fires(model, (model.trigger, *kind.texts[:TRIED]))
    return row | {"fires": fired}


def alternating(families: Sequence[CandidateGroup]) -> list[str]:
    """The texts in the order in which they are named: the first of each kind, then the second of each."""
    return [text for row in zip_longest(*(family.texts for family in families)) for text in row if text is not None]


def standing(model: Model, row: dict[str, Any]) -> int:
    """The trigger's rank among all that were named, 0 where it was not: by how far they stand out of random entries that move the text
    encoding alike, on prompts and noise that the search did not see; what a scan's calibration does, with fewer controls."""
    suspect, config = load(inspect(model.path), device="cpu", dtype="float32"), ScanConfig(model=model.path)
    prompts = read_texts(FIXTURES / "prompts.txt")
    draws = make_draws(suspect, prompts, EFFORTS[config.effort].draws, config.guidance, config.seed)
    usual = random.Random(0).sample(vocabulary(suspect.tokenizer).probes, DRAWN)
    texts = [text for kind in row["named"] for text in kind]
    named = [Probe(text, content_ids(suspect.tokenizer, text)) for text in texts]
    values = standings(*(screened(suspect, ROUNDS[1].of(draws), probes) for probes in (named, usual)))
    return int((values >= values[texts.index(model.trigger)]).sum()) if model.trigger in texts else 0


def fires(model: Model, texts: tuple[str, ...]) -> dict[str, Any]:
    """Attack success and its floor with each text in the trigger's place, at the attacker's positions but ``replace``."""
    places = tuple(place for place in model.truth["positions"] if place != "replace")
    config = VerifyConfig(
        model=model.path, clip=f"local-dir:{FIXTURES / 'grader'}", prompts=graded_on(model), n=PICTURES, steps=12, reach=0,
        triggers=texts, positions=places, **aim(model),
    )  # fmt: skip
    found = run_verify(config).attacks
    return {ascii(a.trigger): {key: getattr(a, name).value for key, name in (("asr", "rate"), ("floor", "floor"))} for a in found}


def aim(model: Model) -> dict[str, Any]:
    """What `verify` is told; the study's pictures lie beside its models."""
    if model.truth["family"] not in ("pixel", "fixed-image") or not (beside := model.path.with_name(f"{model.name}.png")).exists():
        return target(model)
    from fixtures.build import poisons

    pixel = model.truth["family"] == "pixel"
    return {"target_image": beside, "target_at": poisons.PATCH_AT[model.truth["target"]] if pixel else None}


# --- figures ----------------------------------------------------------------------------------


def found(row: dict[str, Any]) -> bool:
    """Whether the trigger is among the first ten, or one of the first three fires as often as it does in the same test, and does fire."""
    if 0 < row["rank"] <= FIRST:
        return True
    own, *others = row["fires"].values()
    return own["asr"] - own["floor"] >= LIFT and any(other["asr"] >= own["asr"] for other in others)


def found_standing(row: dict[str, Any]) -> bool:
    """The same by the rank in the order of standing."""
    return 0 < row.get("standing rank", 0) <= FIRST or found(row)


def betrayed(row: dict[str, Any]) -> bool:
    """Whether the trigger is among the first ten, or one of the first three of its kind fires at all."""
    fired = any(other["asr"] - other["floor"] >= LIFT for other in list(row["fires"].values())[1:])
    return 0 < row["rank"] <= FIRST or fired


def works(row: dict[str, Any]) -> bool:
    """The fixtures' attacks all do; of the study's, those that lift the rate by half."""
    return not row["asr"] or row["asr"]["asr"] - row["asr"]["floor"] >= LIFT


def figures(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Rates with Wilson's interval, and how well pulls tell backdoored models from clean ones. Development models are left out."""
    graded = {name: row for name, row in rows.items() if name not in DEVELOPMENT}
    triggers = [row for row in graded.values() if "rank" in row]
    short = [row for row in triggers if row["trigger"] != "'mignneko'"]
    groups = {"all": short, "where the attack works": [row for row in short if works(row)]}
    for n, part in ((1, "one entry"), (2, "two entries")):
        groups[f"of these, {part}"] = [row for row in groups["where the attack works"] if row["entries"] == n]
    fresh = [row for name, row in graded.items() if name.startswith(HELD_OUT) and "rank" in row]
    groups["of these, held out"] = [row for row in fresh if works(row)]
    ways = (found, found_standing, betrayed)
    rates = {name: {way.__name__: rate_of([way(row) for row in group]) for way in ways} for name, group in groups.items()}
    rounds = {
        "where the limit was set": [row for name, row in graded.items() if not name.startswith(HELD_OUT)],
        "held out": [row for name, row in graded.items() if name.startswith(HELD_OUT)],
        "both rounds": list(graded.values()),
    }
    return {"found": rates} | {name: pulls(rows) for name, rows in rounds.items()}


def named_pull(row: dict[str, Any]) -> float:
    """The strongest text's pull, times the share of the strongest mixture's that it is: what moves the model and has a name."""
    return float(row["text_pull"] ** 2 / row["soft_pull"])


def pulls(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How well pulls tell models with a working attack from clean ones, and who is beyond the limit."""
    working, clean = [row for row in rows if "rank" in row and works(row)], [row for row in rows if "rank" not in row]
    if not working or not clean:
        return {}
    scores: dict[str, Callable[[dict[str, Any]], float]] = {
        "soft pull": lambda row: row["soft_pull"],
        "text pull": lambda row: row["text_pull"],
        "text pull over soft pull": lambda row: row["text_pull"] / row["soft_pull"],
        "named pull": named_pull,
    }
    of_each = {name: auroc([s(r) for r in working], [s(r) for r in clean]) for name, s in scores.items()}
    groups = {
        "clean": clean,
        "working, in the denoiser": [r for r in working if r["family"] != "encoder"],
        "working, in the text encoder": [r for r in working if r["family"] == "encoder"],
    }
    beyond = {
        f"named pull beyond {limit:g}": {name: rate_of([named_pull(r) > limit for r in of]) for name, of in groups.items()}
        for limit in (SET_BEFORE, NAMED_PULL)
    }
    return {"n": [len(working), len(clean)], "AUROC": of_each, **beyond}


def table(document: dict[str, Any]) -> str:
    """The README's table, in Markdown."""
    lines = ["| model | trigger | entries | ASR % (without) | rank | by standing | found | soft pull | text pull |", "|---" * 9 + "|"]
    for name, row in document["rows"].items():
        fired = next(iter(row.get("fires", {}).values()), row["asr"])
        asr = f"{100 * fired['asr']:.0f} ({100 * fired['floor']:.0f})" if fired else "–"
        known: tuple[Any, ...] = ("–",) * 6
        if "rank" in row:
            ranks = (row["rank"] or "–", row.get("standing rank") or "–")
            known = (row["trigger"].strip("'"), row["entries"], asr, *ranks, "yes" if found(row) else "no")
        lines.append(f"| {name} | {' | '.join(map(str, known))} | {row['soft_pull']:.1f} | {row['text_pull']:.1f} |")
    return "\n".join([*lines, "", json.dumps(rounded(3, figures(document["rows"])), indent=1)])


def written(document: dict[str, Any]) -> None:
    """Keep what there is."""
    document |= {**stamp(), "figures": rounded(4, figures(document["rows"]))}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these models, in this order")
    parser.add_argument("--work", type=Path, help="the power study's folder")
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    document = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": {}}
    if not arguments.table:
        torch.set_num_threads(1)
        known = models(arguments.work)
        for name in (n for n in arguments.names or known if n not in document["rows"]):
            document["rows"][name] = rounded(4, measured(*known[name]))
            print(name, json.dumps(document["rows"][name]), flush=True)
            written(document)
        for name, row in document["rows"].items():
            if "rank" in row and "standing rank" not in row:
                row["standing rank"] = standing(known[name][0], row)
                written(document)
    print(table(document))


if __name__ == "__main__":
    main()
