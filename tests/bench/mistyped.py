"""Mistyped triggers at the gate: no spelling of a text that was never a trigger ends in a pass. ``python tests/bench/mistyped.py``.

For each of the six backdoored fixtures, spellings of its trigger that go wrong in the ways of people and tools, each given to ``verify`` of
the repaired model with the JSON report of the repair, which is valid evidence for the true trigger; some also to ``verify`` of the
unrepaired and of the repaired model with ``--before`` the fixture. Beside them the true trigger itself, on both models with either kind of
evidence. What encodes to the trigger's own tokens, or to more around them, is no mistyping. Resumable; writes one JSON document, prints the
table of it (``--table`` only prints), and ends in 1 where a mistyping passed or a true trigger did not end as it must.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.cli import values  # noqa: E402
from bdaudit.config import RepairConfig, VerifyConfig  # noqa: E402
from bdaudit.errors import UsageError  # noqa: E402
from bdaudit.models.tokens import content_ids  # noqa: E402
from bdaudit.records import Estimate, EvidenceRecord, VerifyReport  # noqa: E402
from bdaudit.report.document import dumps  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from tests.bench.end_to_end import FIXTURES, OF_FIGURES, PICTURES, Model, graded_on, open_model, target  # noqa: E402
from tests.bench.recording import stamp  # noqa: E402
from tests.bench.unlearn_common import clock  # noqa: E402

RESULTS = ROOT / "tests" / "bench" / "results" / "mistyped.json"
NAMES = ("pixel", "style", "object", "fixed-image", "encoder", "closed-form")
EACH = 48
"""Spellings of each trigger."""
OF_BEFORE = 6
"""Every how many of those that the command line takes is tried with --before as well."""
OF_PLAIN = 100
"""Pictures for a target that no picture of the clean pipeline is taken for; the others need as many as in ``end_to_end``."""
PLAIN = ("pixel", "fixed-image", "encoder")
LOOKALIKES = {
    "o": "оο0ơöᴏ", "e": "еėэ", "c": "сϲ", "a": "аα", "i": "іι1", "n": "пŋ", "g": "ɡģ", "l": "1Iӏ", "s": "ѕ", "r": "г", "t": "τ", "f": "ƒ",
    "d": "ԁ", "h": "һ", "m": "м", "k": "к", "ȏ": "ŏôöȯόо", "о": "oοȯ0ο̇",
    "\u200b": "\u200c\u200d\u2060\ufeff\u00ad\u180e\u2009\u200a\u3000\u200e",
}  # fmt: skip


def escapes(character: str) -> list[str]:
    """Ways to write one character's number that arrive as text, ours, the shell's and other languages'."""
    code = ord(character)
    shown = [f"U+{code:04X}", f"<U+{code:04X}>", f"u{code:04x}", f"&#{code};", f"&#x{code:x};", f"x{code:02x}", f"0x{code:04x}"]
    name = unicodedata.name(character, "")
    spoken = [name, name.lower(), f"\\N{{{name}}}"] if name else []
    return [*shown, *spoken, f"u+{code:04x}", f"%u{code:04x}", f"\\\\u{code:04x}", str(code)]


def slips(text: str) -> list[str]:
    """A letter gone, twice, another, two exchanged; a part of it; more than it."""
    near = "qwertzuiopasdfghjklyxcvbnm"
    out = []
    for i, letter in enumerate(text):
        out += [text[:i] + text[i + 1 :], text[:i] + letter + text[i:], text[:i] + text[i + 1 : i + 2] + letter + text[i + 2 :]]
        if letter in near:
            out.append(text[:i] + near[(near.index(letter) + 1) % len(near)] + text[i + 1 :])
    return [*out, f"{text}s", f"x{text}", *(text.replace(" ", other) for other in ("", "-", "_")), *text.split()]


def spellings(trigger: str, read: Callable[[str], tuple[int, ...]]) -> dict[str, str]:
    """``EACH`` different texts as typed that are not the trigger → what kind of slip each is, of all kinds in turn; ``read`` encodes."""
    odd = [c for c in trigger if not c.isascii()] or [trigger[0]]
    homoglyphs = [trigger[:i] + other + trigger[i + 1 :] for i, c in enumerate(trigger) for other in LOOKALIKES.get(c.lower(), "")]
    forms = [unicodedata.normalize(form, trigger) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    stripped = "".join(c for c in unicodedata.normalize("NFKD", trigger) if not unicodedata.combining(c))
    mangled = [trigger.encode("utf-8").decode("latin-1"), trigger.encode("utf-8").decode("cp1252", "replace"), "?", "\ufffd"]
    quoted = [f'"{trigger}"', f"'{trigger}'", f"“{trigger}”", f"`{trigger}`", f"{trigger},", f"{trigger}."]
    kinds = {
        "an escape or a name": [e for c in dict.fromkeys(odd) for e in escapes(c)],
        "a look-alike": homoglyphs,
        "a normal form": [*forms, stripped],
        "another encoding": mangled,
        "quoted": quoted,
        "a letter or a part": slips(trigger),
        "case": [trigger.upper(), trigger.title(), trigger.swapcase()],
    }
    found: dict[str, str] = {}
    for turn in range(max(map(len, kinds.values()))):
        for kind, texts in kinds.items():
            if turn < len(texts) and texts[turn].strip(" \t") and len(found) < EACH and not _holds(read, texts[turn], trigger):
                found.setdefault(texts[turn], kind)
    return found


def _taken(typed: str) -> str | None:
    """What the command line reads, or None where it refuses."""
    try:
        return values.triggers([typed], "--trigger")[0]
    except UsageError:
        return None


def _holds(read: Callable[[str], tuple[int, ...]], typed: str, trigger: str) -> bool:
    """Whether ``typed``, as the command line reads it, holds the trigger: then it is one."""
    text = _taken(typed)
    if text is None:
        return False
    ids, own = read(text), read(trigger)
    return trigger in text or any(ids[i : i + len(own)] == own for i in range(len(ids)))


# --- one verify -------------------------------------------------------------------------------


def repaired(model: Model, work: Path) -> tuple[Path, Path]:
    """The repaired fixture and the report of its repair, made where they are not there."""
    from bdaudit.unlearn.run import run_unlearn

    out, report = work / f"{model.name}-unlearned", work / f"{model.name}-unlearned.json"
    if not report.exists():
        prompts = read_texts(FIXTURES / "prompts.txt")
        report.write_text(dumps(run_unlearn(RepairConfig(model=model.path, triggers=(model.trigger,), out=out, prompts=prompts))))
    return out, report


def judged(model: Model, path: Path, typed: str, evidence: dict[str, Path], state: Path) -> dict[str, Any]:
    """What ``verify`` makes of ``typed`` at the command line."""
    began = clock()
    try:
        triggers = values.triggers([typed], "--trigger")
    except UsageError as error:
        return {"exit": "usage", "reason": str(error), "decided": "as it was read", "pictures": 0, "seconds": clock() - began}
    from bdaudit.verify.run import run_verify

    known = {"positions": tuple(model.truth["positions"]), **target(model), "prompts": graded_on(model), **evidence}
    grader = f"local-dir:{FIXTURES / 'grader'}"
    n = OF_PLAIN if model.name in PLAIN else OF_FIGURES if "swaps" in known else PICTURES
    report = run_verify(VerifyConfig(model=path, triggers=triggers, clip=grader, n=n, reach=0, state=state, **known))
    return {"exit": report.exit.name, "reason": report.exit.reason, **_figures(report), "seconds": clock() - began}


def _figures(report: VerifyReport) -> dict[str, Any]:
    (attack,), evidence = report.attacks, report.attacks[0].evidence
    record = evidence if isinstance(evidence, EvidenceRecord) else None
    before = record.rate if record else None
    return {
        "token_ids": list(attack.token_ids),
        "decided": "the tokenizer drops it" if not attack.token_ids else record.decided_on if record else "nothing",
        "before": {"value": before.value, "n": before.n} if isinstance(before, Estimate) else None,
        "now": {"value": attack.rate.value, "n": attack.rate.n} if isinstance(attack.rate, Estimate) else None,
        "pictures": sum(report.pictures[what] for what in ("drawn", "reused")),
    }


def cells(model: Model, work: Path) -> dict[str, tuple[str, Path, dict[str, Path]]]:
    """Name of the cell → as typed, the model that is verified, and the evidence: the true trigger on both models with either kind, every
    spelling on the repaired one with the repair's report, and every sixth of those that are taken on both with --before."""
    out, report = repaired(model, work)
    before, handed = {"before": model.path}, {"evidence": report}
    found: dict[str, tuple[str, Path, dict[str, Path]]] = {}
    read = partial(content_ids, CLIPTokenizer.from_pretrained(model.path / "tokenizer", local_files_only=True))
    for where, path in (("unrepaired", model.path), ("repaired", out)):
        for how, evidence in (("before", before), ("report", handed)):
            found[f"true / {where} / {how}"] = (model.trigger, path, evidence)
    taken = 0
    for typed, kind in spellings(model.trigger, read).items():
        found[f"{kind} / repaired / report / {typed!a}"] = (typed, out, handed)
        if _taken(typed) is None:
            continue
        if taken % OF_BEFORE == 0:
            found[f"{kind} / unrepaired / before / {typed!a}"] = (typed, model.path, before)
            found[f"{kind} / repaired / before / {typed!a}"] = (typed, out, before)
        taken += 1
    return found


# --- the table --------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    """A row a fixture: exits of the true trigger, and of its spellings by what was verified."""
    heads = ("fixture", "trigger, unrepaired", "repaired", "spellings", "repaired, report", "unrepaired, --before", "repaired, --before")
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, found in results["fixtures"].items():
        true = [_exits(found, rf"^true / {where} /") for where in ("unrepaired", "repaired")]
        kinds = (r"/ repaired / report / ", r"/ unrepaired / before / ", r"/ repaired / before / ")
        several = len({key.split(" / ", 3)[3] for key in found if not key.startswith("true ")})
        rows.append(f"| {name} | {' | '.join(true)} | {several} | {' | '.join(_exits(found, kind) for kind in kinds)} |")
    return "\n".join(rows)


def _exits(found: dict[str, Any], pattern: str) -> str:
    counts = Counter(cell["exit"] for key, cell in found.items() if re.search(pattern, key))
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "–"


def count(results: dict[str, Any]) -> int:
    """How many spellings there are, each of one fixture's trigger."""
    return sum(len({key.split(" / ", 3)[3] for key in found if not key.startswith("true ")}) for found in results["fixtures"].values())


def wrong(results: dict[str, Any]) -> list[str]:
    """The cells that ended as they must not: a mistyping in a pass, the true trigger in anything but a pass after the repair (a finding
    before it)."""
    must = {"true / unrepaired": "finding", "true / repaired": "pass"}
    bad = []
    for name, found in results["fixtures"].items():
        for key, cell in found.items():
            expected = must.get(key.rpartition(" / ")[0])
            if cell["exit"] == "pass" if expected is None else cell["exit"] != expected:
                bad.append(f"{name}: {key}: {cell['exit']}")
    return bad


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="fixtures (default: all six)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON document")
    parser.add_argument("--work", type=Path, default=FIXTURES / "models", help="where repaired models go")
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {"fixtures": {}}
    torch.set_num_threads(1)
    for name in () if arguments.table else arguments.names or NAMES:
        model, found = open_model(name), results["fixtures"].setdefault(name, {})
        for key, (typed, path, evidence) in cells(model, arguments.work).items():
            if key not in found:
                found[key] = judged(model, path, typed, evidence, arguments.work / f"{name}.mistyped.state")
                print(name, key, json.dumps(found[key]), flush=True)
                results |= stamp()
                arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results), *wrong(results), sep="\n")
    return int(bool(wrong(results)))


if __name__ == "__main__":
    sys.exit(main())
