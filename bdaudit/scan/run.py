"""`scan` from directory to report: inspect, load, measure controls and candidates alike, calibrate, judge, explain."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from bdaudit.config import ScanConfig
from bdaudit.config.effort import EFFORTS
from bdaudit.errors import ExitCode, InconclusiveError
from bdaudit.kept_state import State
from bdaudit.measure.context_prompts import having, wanted, with_context
from bdaudit.measure.controls import control_texts, kind_of, words_of
from bdaudit.measure.draws import DrawsOf, covering, make_draws
from bdaudit.measure.envelope import envelope, file_records, learned_records
from bdaudit.measure.grader import Grader, load_grader
from bdaudit.measure.opening import inspected, loaded, open_state
from bdaudit.measure.prompts import default_prompts
from bdaudit.measure.understood import read_both_ways
from bdaudit.models.embeddings import Embedding, learn, learned, read_embedding
from bdaudit.models.lora import Adapter, applied, read_adapters
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.progress import Progress, silent
from bdaudit.records import (
    CandidateRecord,
    Coverage,
    EarlierFinding,
    Exit,
    NotMeasured,
    RecoveryRecord,
    ScanReport,
    Skipped,
)
from bdaudit.report.command import adapter_flags, part_flags, place, size_flag, template_flags, trigger_flags, typed
from bdaudit.report.dry_run import duration, passes
from bdaudit.scan.accept import accept, audited_digest, ready_entry
from bdaudit.scan.cached import UNTOUCHED
from bdaudit.scan.calibration import calibration
from bdaudit.scan.candidates import collect, listed, skips
from bdaudit.scan.context import ScanContext
from bdaudit.scan.crew import Prompts, crew_of
from bdaudit.scan.earlier import found_earlier, joined_with, remember, standing
from bdaudit.scan.explain import Addition, brought_by, located, prompt_records, with_places
from bdaudit.scan.exposure.copy import STOP, Stop
from bdaudit.scan.exposure.run import Exposed, expose
from bdaudit.scan.judge import Measured, exit_of, judge, sources_of
from bdaudit.scan.kept_draws import kept_draws
from bdaudit.scan.level import Harmless
from bdaudit.scan.look import Looking
from bdaudit.scan.looked import Look
from bdaudit.scan.multiplicity import CandidateGroup
from bdaudit.scan.pictures import draw
from bdaudit.scan.settle import Settling, settled
from bdaudit.scan.sweep.result import SIZES, SweepSizes
from bdaudit.spelling.points import described
from bdaudit.spelling.reader import read_twice
from bdaudit.untrusted.inspect import Inspection

NOT_LOOKED_AT = ("texts that were not listed", "backdoors without a trigger text", "LoRA files and embeddings that are not named")


@dataclass(frozen=True)
class ScanSettings:
    """What no flag changes."""

    per_kind: int = 16
    """Controls of each kind, where the kind has so many."""
    prompt_words: int = 24
    """Words of the prompts themselves among the controls."""
    sizes: SweepSizes = SIZES
    stop: Stop = STOP


SETTINGS = ScanSettings()


@dataclass
class _Run:
    """What a run has so far; an interrupted one is reported from it."""

    config: ScanConfig
    settings: ScanSettings
    progress: Progress
    inspection: Inspection
    reference: Inspection | None
    """Its weights are loaded when something is found."""
    suspect: Suspect
    adapters: tuple[Adapter, ...]
    embeddings: tuple[Embedding, ...]
    state: State
    grader: Grader | NotMeasured | None
    """With ``--clip``."""
    candidates: dict[str, tuple[int, ...]]
    """Each candidate and what it encodes to."""
    groups: tuple[CandidateGroup, ...] = ()
    context: ScanContext = field(init=False)
    looking: Looking = field(init=False)
    looks: dict[str, Look] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    exposed: Exposed = field(default_factory=Exposed)
    lost: list[str] = field(default_factory=list)
    """Workers that were dropped, and why."""
    judged: ScanReport | None = None
    """The report with every verdict, while the findings are looked into further."""

    @property
    def prompts(self) -> tuple[str, ...]:
        own = self.config.prompts or default_prompts()
        return tuple(dict.fromkeys((*own, *with_context(own, self.config.contexts, self.config.seed)))) if self.config.contexts else own

    @property
    def encoded(self) -> dict[str, tuple[int, ...]]:
        """The candidates that encode to something."""
        return {text: ids for text, ids in self.candidates.items() if ids}

    @property
    def drawn(self) -> list[str]:
        """Texts of sweeps that were drawn at random; no candidates."""
        return [text for group in self.groups for text in group.drawn]

    @property
    def recovery(self) -> RecoveryRecord | NotMeasured:
        return next((group.recovery for group in self.groups if group.recovery), ScanReport.recovery)

    def kind(self, text: str) -> str:
        return kind_of(self.suspect.tokenizer, text)


def run_scan(config: ScanConfig, progress: Progress = silent, settings: ScanSettings = SETTINGS) -> ScanReport:
    """Probe every candidate and say which are triggers.

    Raises:
        RefusedError, BdauditError: the model cannot be opened safely, or at all.
        InconclusiveError: its architecture is not supported.
    """
    run = _opened(config, settings, progress)
    if not run.encoded and not config.sweeps and not config.suspected:
        said = "no candidate encodes to any token, so nothing was tested"
        run.state.finish()
        return _report(run, "completed", Exit.of(ExitCode.INCONCLUSIVE, said), ())
    try:
        report = _completed(run)
    except KeyboardInterrupt:
        ended = Exit.of(ExitCode.INTERRUPTED, "stopped by the user")
        return replace(run.judged or _report(run, "interrupted", ended, ()), status="interrupted", exit=ended)
    run.state.finish()
    return report


def _opened(config: ScanConfig, settings: ScanSettings, progress: Progress) -> _Run:
    started = time.monotonic()
    inspection = inspected(config, config.model)
    reference = inspected(config, config.reference) if config.reference else None
    config = replace(config, seed=keyed_seed(config.seed_from, inspection.digest)) if config.seed_from else config
    suspect = loaded(config, inspection)
    adapters = read_adapters(config.adapters, suspect)
    embeddings = tuple(read_embedding(path, token) for path, token in config.embeddings)
    config = replace(config, candidates=with_tokens(config, embeddings)) if embeddings else config
    state = open_state("scan", config, UNTOUCHED, inspection.digest, (*adapters, *embeddings))
    state.write_json("seed", config.seed)
    with learned(suspect, embeddings):
        candidates = {text: content_ids(suspect.tokenizer, text) for text in listed(config)}
    timings = {"load": time.monotonic() - started}
    grader = load_grader(config.clip, suspect.device) if config.clip else None
    return _Run(
        config, settings, progress, inspection, reference, suspect, adapters, embeddings, state, grader, candidates, timings=timings
    )  # fmt: skip


def with_tokens(config: ScanConfig, embeddings: Sequence[Embedding]) -> tuple[str, ...]:
    """The candidates, the embeddings' tokens first."""
    return tuple(dict.fromkeys((*(embedding.token for embedding in embeddings), *listed(config))))


@contextmanager
def _with(suspect: Suspect, adapters: Sequence[Adapter], embeddings: Sequence[Embedding]) -> Iterator[None]:
    with applied(suspect, adapters), learned(suspect, embeddings):  # an adapter's change of the table is for the table as it was
        yield


def keyed_seed(variable: str, digest: str) -> int:
    """HMAC-SHA-256 of the model's digest, keyed by what an environment variable holds; below 2³¹."""
    made = hmac.new(os.environ[variable].encode("utf-8", "surrogateescape"), digest.encode("ascii"), hashlib.sha256).digest()
    return int.from_bytes(made[:4], "big") >> 1


def _completed(run: _Run) -> ScanReport:
    with _with(run.suspect, run.adapters, run.embeddings):
        started = time.monotonic()
        _draw(run)
        added = [*(each.key for each in run.adapters), *(each.key for each in run.embeddings)]
        drawn_from = Prompts(_drawn_from(run, EFFORTS[run.config.effort].draws), run.prompts)
        with crew_of(run.config, run.context, run.inspection, added, drawn_from) as run.context:
            run.lost = run.context.crew.notes if run.context.crew else []
            _collect(run)
            _look(run)
        run.context = run.looking.context = replace(run.context, crew=None)  # what follows exchanges weights
        run.timings["probe"] = time.monotonic() - started
        _expose(run)
        run.judged = report = _judged(run)
        findings = [record.text for record in report.candidates if record.verdict == "backdoored" and not record.same_as]
        images = _drawn(run, report.candidates)
        prompts = prompt_records(run.config.suspected, run.groups, report.candidates, partial(_p_of, run), run.config.alpha)
        records = with_places(report.candidates, located(run.context, _reference(run), findings), run.suspect.denoiser)
        kinds = {text: run.kind(text) for text in findings}
    if kinds and (run.adapters or run.embeddings):
        alone = brought_by(run.context, _additions(run), run.looking.controls, kinds, run.config.alpha)
        records = tuple(replace(record, adapter=alone.get(record.text, "")) for record in records)
    return replace(report, candidates=records, prompts=prompts, images=images)


def _drawn(run: _Run, records: Sequence[CandidateRecord]) -> tuple[str, ...]:
    """With ``--pictures``, a sheet of each finding and of the first of the ranking."""
    config = run.config
    if not config.pictures or config.pictures_to is None:
        return ()
    return draw(run.looking, records, config.pictures, config.guidance, config.pictures_to)


def _settling(run: _Run) -> Settling | NotMeasured | None:
    """What findings are asked with; none without ``--clip``."""
    grader = run.grader
    if grader is None or isinstance(grader, NotMeasured):
        return grader
    return Settling(run.suspect, grader, run.looking, run.config.guidance)


def _additions(run: _Run) -> tuple[Addition, ...]:
    """Each adapter and embedding by itself."""

    def adapter(one: Adapter) -> Callable[[], AbstractContextManager[None]]:
        return lambda: applied(run.suspect, (one,))

    def embedding(one: Embedding) -> Callable[[], AbstractContextManager[None]]:
        return lambda: learned(run.suspect, (one,))

    of_adapters = (Addition("adapter", each.files[0].path, adapter(each)) for each in run.adapters)
    return (*of_adapters, *(Addition("embedding", each.file.path, embedding(each)) for each in run.embeddings))


def _reference(run: _Run) -> Callable[[], Suspect] | None:
    """Opens the reference model, at the batch size that the suspect could hold."""
    inspection = run.reference
    if inspection is None:
        return None

    def opened() -> Suspect:
        suspect = loaded(replace(run.config, batch_size=run.suspect.batch_size), inspection)
        learn(suspect, run.embeddings)  # so that a token is the same entry of both
        return suspect

    return opened


def _draw(run: _Run) -> None:
    """The draws, which all texts share."""
    config = run.config
    n = EFFORTS[config.effort].draws
    make = partial(make_draws, run.suspect, _drawn_from(run, n), n, config.guidance, config.seed)
    began, before = time.monotonic(), run.suspect.forward_passes
    draws = kept_draws(run.state, run.suspect, n, make)
    if run.suspect.forward_passes > before:
        each = (time.monotonic() - began) / (run.suspect.forward_passes - before)
        run.progress(f"about {passes(config):,} passes, {duration(each * passes(config))} at {each:.2g} s a pass", 0, 1)
    run.context = ScanContext(run.suspect, replace(draws, of=DrawsOf()), run.state, run.progress, config.seed)


def _collect(run: _Run) -> None:
    """The controls, and every source of candidates; the controls are chosen before any sweep, and left to be swept."""
    config, tokenizer, effort = run.config, run.suspect.tokenizer, EFFORTS[run.config.effort]
    controls = control_texts(tokenizer, run.settings.per_kind, config.seed, exclude=run.candidates)
    known = [text for texts in controls.values() for text in texts]
    words = words_of(run.prompts, run.settings.prompt_words, exclude=[*run.candidates, *known])
    harmless = [*(Harmless(text, kind) for kind, texts in controls.items() for text in texts), *(Harmless(word, "") for word in words)]
    run.looking = Looking(run.context, effort, harmless, run.prompts)
    started = time.monotonic()
    run.groups = collect(run.context, config, run.prompts, run.settings.sizes)
    run.candidates = {text: content_ids(tokenizer, text) for group in run.groups for text in group.texts}
    run.timings["sweep"] = time.monotonic() - started


def _drawn_from(run: _Run, n: int) -> tuple[str, ...]:
    """The prompts that draws are of; with ``--context``, half of them say one."""
    inside = having(run.prompts, run.config.contexts)
    return (*covering(inside, n // 2, run.config.seed), *covering(run.prompts, n - n // 2, run.config.seed)) if inside else run.prompts


def _look(run: _Run) -> None:
    """All controls and all distinct candidates, looked at alike."""
    before = run.suspect.forward_passes
    texts = {text: run.kind(text) for text in [*sources_of(run.encoded).values(), *run.drawn]}
    try:
        run.looks = run.looking.run(texts, run.drawn)
    except ValueError as error:
        said = f"the harmless controls give no null on this model ({error})"
        raise InconclusiveError(f"{said}; its predictions may not depend on the prompt at all") from error
    spent = run.suspect.forward_passes - before
    run.passes = {"all": run.suspect.forward_passes, "each": spent // max(1, len(texts) + len(run.looking.controls))}


def _expose(run: _Run) -> None:
    """With ``--expose``, all that was measured once more beside an exposed copy."""
    if run.config.expose == "off":
        return
    started, before = time.monotonic(), run.suspect.forward_passes
    run.exposed = expose(run.context, run.config, run.prompts, run.looking.names, [*run.looking.names, *run.looks], run.settings.stop)
    run.passes["all"] += run.suspect.forward_passes - before
    run.timings["expose"] = time.monotonic() - started


def _p_of(run: _Run, text: str) -> float:
    """The p of a text that was not among the candidates."""
    return run.looking.p_of(text, run.kind(text))


def _judged(run: _Run) -> ScanReport:
    kinds = {text: run.kind(text) for text in run.encoded}
    words = [run.looking.of(control.text, "").effect for control in run.looking.controls if not control.kind]
    measured = Measured(run.encoded, run.groups, kinds, run.looks, words, run.exposed.signals, run.suspect.denoiser.name)
    twice, today = read_twice(run.config.candidates), datetime.now(UTC).date()
    found = settled(judge(measured, run.config.alpha), _settling(run))
    judged, acceptances = accept(found, run.config.accept, _digest(run), today)
    records = tuple(replace(_with_next(run, record, today), reading=reading(twice, record.text)) for record in judged)
    ended = unless_read_otherwise(run.adapters, exit_of(run.config.fail_on, records, run.recovery))
    ended = unless_tampered(ended, run.looking.loud_kinds)
    earlier = _earlier(run, records, today)
    ended = joined_with(ended, earlier, run.config.fail_on)
    ended = replace(ended, reason=f"{ended.reason}; seed {run.config.seed}")
    report = replace(_report(run, "completed", ended, records), earlier=earlier)
    copies = max(map(len, run.exposed.signals.values()), default=0)
    rests_on = calibration(run.looking, run.prompts, run.config.alpha, run.passes["all"], run.passes["each"], copies)
    return replace(report, acceptances=acceptances, calibration=rests_on)


def _earlier(run: _Run, records: Sequence[CandidateRecord], today: date) -> tuple[EarlierFinding, ...]:
    """With ``--keep``, what earlier runs of the model found besides and nobody accepted; what this one found is kept for the next."""
    keep, digest = run.config.keep, _digest(run)
    if keep is None:
        return ()
    earlier = found_earlier(keep, digest, records)
    remember(keep, digest, run.config.seed, records)
    return standing(earlier, run.config.accept, digest, today)


def _digest(run: _Run) -> str:
    """Of the model, and the adapters and embeddings that were audited."""
    return audited_digest(run.inspection.digest, [*(each.key for each in run.adapters), *(each.key for each in run.embeddings)])


def _with_next(run: _Run, record: CandidateRecord, today: date) -> CandidateRecord:
    """A finding with what to type next, and whatever reaches the gate with the entry that would accept it."""
    if record.verdict not in ("backdoored", run.config.fail_on):
        return record
    learnt = any(embedding.token in record.text for embedding in run.embeddings)  # leaving the file out is all that it takes
    repair = command(run.config, record.text) if record.verdict == "backdoored" and not learnt else ""
    return replace(record, command=repair, accept_entry=ready_entry(record, _digest(run), today))


def reading(twice: Mapping[str, str], text: str) -> str:
    """Which reading of a list's line ``text`` is, where it was read both ways."""
    if text in twice:
        return f"as it stands, though written like {described(twice[text])}"
    literal = next((other for other, meant in twice.items() if meant == text), "")
    return f"the character that {literal!a} is written like" if literal else ""


def unless_read_otherwise(adapters: Sequence[Adapter], ended: Exit) -> Exit:
    """A pass, whatever the gate, says nothing of what people run where diffusers makes another model of an adapter."""
    otherwise = [adapter.read_otherwise for adapter in adapters if adapter.read_otherwise]
    if ended.code != ExitCode.PASS or not otherwise:
        return ended
    said = f"{ended.reason}; not audited: {otherwise[0]}"
    return Exit.of(ExitCode.INCONCLUSIVE, f"{said}; merge it with the tool that you use, and scan the result")


def unless_tampered(ended: Exit, loud: Mapping[str, float]) -> Exit:
    """A pass, whatever the gate, says nothing where harmless texts that it rests on are loud as a kind: somebody can have made them so."""
    if ended.code != ExitCode.PASS or not loud:
        return ended
    said = ", ".join(f"{kind} (by {units:.1f} times what sets the loudest of others apart)" for kind, units in loud.items())
    return Exit.of(
        ExitCode.INCONCLUSIVE,
        f"{ended.reason}, but the null looks tampered with: harmless texts of one kind move the model as no other kind does: {said}; "
        "all of them may be triggers; look at one of them with unlearn, or leave the model alone",
    )


def command(config: ScanConfig, text: str) -> str:
    """What to type next: the repair, on the same prompts, of a model that opens with the same leave, the adapters merged in."""
    prompts = ["--prompts", place(config.prompts_file)] if config.prompts_file else []
    leave = [*(["--variant", config.variant] if config.variant else []), *(["--allow-pickle"] if config.allow_pickle else [])]
    lora = adapter_flags(config.adapters)
    leave += template_flags(config.trusted_templates)
    leave += part_flags(config.parts_from, [each for each in config.parts if not each[0]])
    return typed("unlearn", config.model, *lora, *trigger_flags([text]), *prompts, *size_flag(config.size), *leave)


def _report(run: _Run, status: Any, ended: Exit, records: tuple[CandidateRecord, ...]) -> ScanReport:
    sweeps = tuple(group.record for group in run.groups if group.record)
    return ScanReport(
        **envelope("scan", run.config, run.inspection, run.suspect),
        status=status,
        exit=ended,
        timings=run.timings,
        coverage=_coverage(run),
        candidates=records,
        sweeps=sweeps,
        adapters=file_records(file for adapter in run.adapters for file in adapter.files),
        embeddings=learned_records(run.embeddings),
        recovery=run.recovery,
        exposure=run.exposed.record,
    )


def _coverage(run: _Run) -> Coverage:
    sweeps = [group.record for group in run.groups if group.record]
    screened_out = sum(sweep.swept - sweep.survivors for sweep in sweeps)
    tested = sum(source in run.looks for source in sources_of(run.encoded).values())
    skipped = [Skipped(what=text, reason="encodes to no token, so it was not tested") for text, ids in run.candidates.items() if not ids]
    cut = "measured, but the text encoder's length cut part of a prompt off"
    skipped += [Skipped(what=text, reason=cut) for text, look in run.looks.items() if look.truncated]
    skipped += [skip for sweep in sweeps for skip in skips(sweep)]
    return Coverage(
        asked=len(run.candidates) + screened_out, tested=tested + screened_out, skipped=tuple(skipped),
        not_looked_at=_not_looked_at(run), notes=(*read_both_ways(run.config), *_few(run.config), *run.lost),
    )  # fmt: skip


def _few(config: ScanConfig) -> tuple[str, ...]:
    few = wanted(config.prompts or default_prompts(), config.contexts)
    return (few,) if few else ()


def _not_looked_at(run: _Run) -> tuple[str, ...]:
    listed_only, *others = NOT_LOOKED_AT
    what = ("triggers of three words or more, and pairs of parts that were not swept together",)
    otherwise = (adapter.read_otherwise for adapter in run.adapters if adapter.read_otherwise)
    return (*(what if run.config.sweeps else (listed_only,)), *others, *_unknown_of_family(run), *otherwise)


def _unknown_of_family(run: _Run) -> tuple[str, ...]:
    """What is measured on other families and says nothing of this one, as far as is known."""
    apart = "texts of two entries, which are swept only where words' states that were encoded apart can stand together"
    alike = "whether the attention maps of a prompt's words become alike, which tells nothing that is known where words look at each other"
    swept = {"vocabulary", "pairs"} & set(run.config.sweeps) and not run.suspect.text.crowds
    return (*((apart,) if swept else ()), *(() if run.suspect.denoiser.assimilates else (alike,)))
