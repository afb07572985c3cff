"""What a scan says of what it looked at and what not."""

from __future__ import annotations

from bdaudit.config import ScanConfig
from bdaudit.measure.context_prompts import wanted
from bdaudit.measure.prompts import default_prompts
from bdaudit.measure.understood import read_both_ways
from bdaudit.records import Coverage, Skipped
from bdaudit.scan.candidates import skips
from bdaudit.scan.judge import sources_of
from bdaudit.scan.opening import Run

NOT_LOOKED_AT = ("texts that were not listed", "backdoors without a trigger text", "LoRA files and embeddings that are not named")


def coverage(run: Run) -> Coverage:
    """Of what was asked, what was tested, what was left out and why; and what no scan like it looks at."""
    sweeps = [group.record for group in run.groups if group.record]
    screened_out = sum(sweep.swept - sweep.survivors for sweep in sweeps)
    tested = sum(source in run.looks for source in sources_of(run.encoded).values())
    skipped = [
        Skipped(what=text, reason="encodes to no token, so it was not tested") for text, each in run.candidates.items() if each.empty
    ]
    cut = "measured, but the text encoder's length cut part of a prompt off"
    skipped += [Skipped(what=text, reason=cut) for text, look in run.looks.items() if look.truncated]
    skipped += [skip for sweep in sweeps for skip in skips(sweep)]
    return Coverage(
        asked=len(run.candidates) + screened_out, tested=tested + screened_out, skipped=tuple(skipped),
        not_looked_at=_not_looked_at(run), notes=(*read_both_ways(run.config), *_few(run.config), *_turns(run), *run.lost),
    )  # fmt: skip


def _turns(run: Run) -> tuple[str, ...]:
    waits, layered = (", ".join(names) for names in (run.suspect.waiting, run.suspect.layered))
    said = (f"{waits} came to the device by turns, since the weights do not fit it together",) if waits else ()
    return (*said, f"{layered} came layer by layer, since it does not fit the device by itself") if layered else said


def _few(config: ScanConfig) -> tuple[str, ...]:
    few = wanted(config.prompts or default_prompts(), config.contexts)
    return (few,) if few else ()


def _not_looked_at(run: Run) -> tuple[str, ...]:
    listed_only, *others = NOT_LOOKED_AT
    what = ("triggers of three words or more, and pairs of parts that were not swept together",)
    otherwise = (adapter.read_otherwise for adapter in run.adapters if adapter.read_otherwise)
    return (*(what if run.config.sweeps else (listed_only,)), *others, *_unknown_of_family(run), *otherwise)


def _unknown_of_family(run: Run) -> tuple[str, ...]:
    """What is measured on other families and says nothing of this one, as far as is known."""
    apart = "texts of two entries, which are swept only where words' states that were encoded apart can stand together"
    alike = "whether the attention maps of a prompt's words become alike, which tells nothing that is known where words look at each other"
    swept = {"vocabulary", "pairs"} & set(run.config.sweeps) and not run.suspect.text.crowds
    return (*((apart,) if swept else ()), *(() if run.suspect.denoiser.assimilates else (alike,)))
