"""`scan` from directory to report: measure controls and candidates alike, calibrate, judge, explain."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache, partial
from typing import Any

import torch

from bdaudit.config import ScanConfig
from bdaudit.config.effort import EFFORTS
from bdaudit.errors import BdauditError, ExitCode, InconclusiveError
from bdaudit.measure.context_prompts import having
from bdaudit.measure.controls import control_texts, said_in, words_of
from bdaudit.measure.draws import DrawsOf, covering, make_draws
from bdaudit.measure.envelope import envelope, file_records, learned_records
from bdaudit.measure.opening import loaded
from bdaudit.models.embeddings import Embedding, learn, learned
from bdaudit.models.lora import Adapter, applied
from bdaudit.models.suspect import Suspect
from bdaudit.progress import Progress, silent, timed
from bdaudit.records import CandidateRecord, EarlierFinding, Exit, NotMeasured, ScanReport, Weights
from bdaudit.report.dry_run import duration, passes
from bdaudit.scan.accept import accept
from bdaudit.scan.calibration import calibration
from bdaudit.scan.candidates import collect
from bdaudit.scan.context import ScanContext
from bdaudit.scan.coverage import coverage
from bdaudit.scan.crew import Prompts, crew_of
from bdaudit.scan.earlier import found_earlier, joined_with, remember, standing
from bdaudit.scan.encoded import encoded
from bdaudit.scan.ending import digest_of, reading, unless_read_otherwise, unless_tampered, with_next
from bdaudit.scan.explain import Addition, brought_by, located, prompt_records, with_places
from bdaudit.scan.exposure.readout import FIRST, SIGNAL, expose
from bdaudit.scan.judge import Measured, exit_of, judge, sources_of
from bdaudit.scan.kept_draws import kept_draws
from bdaudit.scan.level import Harmless
from bdaudit.scan.look import Looking
from bdaudit.scan.opening import SETTINGS, Run, ScanSettings, opened
from bdaudit.scan.pictures import draw
from bdaudit.scan.settle import Settling, settled
from bdaudit.scan.weights.section import weights
from bdaudit.spelling.reader import read_twice

log = logging.getLogger(__name__)


def run_scan(config: ScanConfig, progress: Progress = silent, settings: ScanSettings = SETTINGS) -> ScanReport:
    """Probe every candidate and say which are triggers.

    Raises:
        RefusedError, BdauditError: the model cannot be opened safely, or at all.
        InconclusiveError: its architecture is not supported.
    """
    run = opened(config, settings, progress)
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


@contextmanager
def _with(suspect: Suspect, adapters: Sequence[Adapter], embeddings: Sequence[Embedding]) -> Iterator[None]:
    with applied(suspect, adapters), learned(suspect, embeddings):  # an adapter's change of the table is for the table as it was
        yield


def _completed(run: Run) -> ScanReport:
    reference = _reference(run)
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
        run.judged = report = _judged(run)
        run.judged = report = _exposed(run, report)
        findings = [record.text for record in report.candidates if record.verdict == "backdoored" and not record.same_as]
        images = _drawn(run, report.candidates)
        prompts = prompt_records(run.config.suspected, run.groups, report.candidates, partial(_p_of, run), run.config.alpha)
        records = with_places(report.candidates, located(run.context, reference, findings), run.suspect.denoiser)
        kinds = {text: run.kind(text) for text in findings}
    report = replace(report, weights=_weights(run, reference))
    if kinds and (run.adapters or run.embeddings):
        alone = brought_by(run.context, _additions(run), run.looking.controls, kinds, run.config.alpha)
        records = tuple(replace(record, adapter=alone.get(record.text, "")) for record in records)
    return replace(report, candidates=records, prompts=prompts, images=images)


def _drawn(run: Run, records: Sequence[CandidateRecord]) -> tuple[str, ...]:
    """With ``--pictures``, a sheet of each finding and of the first of the ranking."""
    config = run.config
    if not config.pictures or config.pictures_to is None:
        return ()
    return draw(run.looking, records, config.pictures, config.guidance, config.pictures_to)


def _settling(run: Run) -> Settling | NotMeasured | None:
    """What findings are asked with; none without ``--clip``."""
    grader = run.grader
    if grader is None or isinstance(grader, NotMeasured):
        return grader
    return Settling(run.suspect, grader, run.looking, run.config.guidance)


def _additions(run: Run) -> tuple[Addition, ...]:
    """Each adapter and embedding by itself."""

    def adapter(one: Adapter) -> Callable[[], AbstractContextManager[None]]:
        return lambda: applied(run.suspect, (one,))

    def embedding(one: Embedding) -> Callable[[], AbstractContextManager[None]]:
        return lambda: learned(run.suspect, (one,))

    of_adapters = (Addition("adapter", each.files[0].path, adapter(each)) for each in run.adapters)
    return (*of_adapters, *(Addition("embedding", each.file.path, embedding(each)) for each in run.embeddings))


def _weights(run: Run, reference: Callable[[], Suspect] | None) -> Weights | NotMeasured:
    """Rows and layers that stand apart; nothing is in the model but what its files hold."""
    run.progress("looking at the weights", 0, 1)
    try:
        with timed(run.timings, "weights"):
            return weights(run.suspect, reference() if reference else None)
    except BdauditError as error:
        return NotMeasured(reason=f"the reference cannot be used: {error}")
    except torch.cuda.OutOfMemoryError:  # nothing of the verdicts follows from it, so that no run ends for it
        return NotMeasured(reason="the device has no memory left for it; take a larger one, or --device cpu")


def _reference(run: Run) -> Callable[[], Suspect] | None:
    """Opens the reference model, once, at the batch size that the suspect could hold."""
    inspection = run.reference
    if inspection is None:
        return None

    @cache
    def opened() -> Suspect:
        suspect = loaded(replace(run.config, batch_size=run.suspect.batch_size), inspection)
        learn(suspect, run.embeddings)  # so that a token is the same entry of both
        return suspect

    return opened


def _draw(run: Run) -> None:
    """The draws, which all texts share."""
    config = run.config
    effort = EFFORTS[config.effort]
    n = effort.draws
    make = partial(make_draws, run.suspect, _drawn_from(run, n), n, config.guidance, config.seed, effort.first)
    began, before = time.monotonic(), run.suspect.forward_passes
    draws = kept_draws(run.state, run.suspect, n, make)
    if run.suspect.forward_passes > before:
        each = (time.monotonic() - began) / (run.suspect.forward_passes - before)
        log.info("about %s passes, %s at %.2g s a pass", f"{passes(config):,}", duration(each * passes(config)), each)
    run.context = ScanContext(run.suspect, replace(draws, of=DrawsOf()), run.state, run.progress, config.seed)


def _collect(run: Run) -> None:
    """The controls, and every source of candidates; the controls are chosen before any sweep, and left to be swept."""
    config, tokenizer, effort = run.config, run.suspect.tokenizer, EFFORTS[run.config.effort]
    controls = control_texts(tokenizer, run.settings.per_kind, config.seed, exclude=run.candidates, said=said_in(run.prompts))
    known = [text for texts in controls.values() for text in texts]
    words = words_of(run.prompts, run.settings.prompt_words, exclude=[*run.candidates, *known])
    harmless = [*(Harmless(text, kind) for kind, texts in controls.items() for text in texts), *(Harmless(word, "") for word in words)]
    run.looking = Looking(run.context, effort, harmless, run.prompts)
    started = time.monotonic()
    run.groups = collect(run.context, config, run.prompts, run.settings.sizes)
    run.candidates = {text: encoded(run.suspect.text, text) for group in run.groups for text in group.texts}
    run.timings["sweep"] = time.monotonic() - started


def _drawn_from(run: Run, n: int) -> tuple[str, ...]:
    """The prompts that draws are of; with ``--context``, half of them say one."""
    inside = having(run.prompts, run.config.contexts)
    return (*covering(inside, n // 2, run.config.seed), *covering(run.prompts, n - n // 2, run.config.seed)) if inside else run.prompts


def _look(run: Run) -> None:
    """All controls and all distinct candidates, looked at alike."""
    before = run.suspect.forward_passes
    texts = {text: run.kind(text) for text in [*sources_of(run.encoded).values(), *run.drawn]}
    log.info("calibrating on %d harmless texts, then looking at %d candidates", len(run.looking.controls), len(texts))
    try:
        run.looks = run.looking.run(texts, run.drawn)
    except ValueError as error:
        said = f"the harmless controls give no null on this model ({error})"
        raise InconclusiveError(f"{said}; its predictions may not depend on the prompt at all") from error
    spent = run.suspect.forward_passes - before
    run.passes = {"all": run.suspect.forward_passes, "each": spent // max(1, len(texts) + len(run.looking.controls))}


def _exposed(run: Run, report: ScanReport) -> ScanReport:
    """With ``--expose``, the report with what is left of the first of its ranking in an exposed copy."""
    if not run.config.expose:
        return report
    with timed(run.timings, "expose"):
        first = [record.text for record in report.candidates if not record.same_as][:FIRST]
        exposure, left = expose(run.context, run.config, run.prompts, run.looking.names, first, run.settings.stop)
    records = (replace(r, signals={**r.signals, SIGNAL: left[r.text]}) if r.text in left else r for r in report.candidates)
    return replace(report, candidates=tuple(records), exposure=exposure)


def _p_of(run: Run, text: str) -> float:
    """The p of a text that was not among the candidates."""
    return run.looking.p_of(text, run.kind(text))


def _judged(run: Run) -> ScanReport:
    kinds = {text: run.kind(text) for text in run.encoded}
    words = [run.looking.of(control.text, "").effect for control in run.looking.controls if not control.kind]
    measured = Measured(run.encoded, run.groups, kinds, run.looks, words, run.suspect.denoiser.name)
    twice, today = read_twice(run.config.candidates), datetime.now(UTC).date()
    found = settled(judge(measured, run.config.alpha), _settling(run))
    judged, acceptances = accept(found, run.config.accept, digest_of(run), today)
    records = tuple(replace(with_next(run, record, today), reading=reading(twice, record.text)) for record in judged)
    ended = unless_read_otherwise(run.adapters, exit_of(run.config.fail_on, records, run.recovery))
    ended = unless_tampered(ended, run.looking.loud_kinds, run.looking.loud)
    earlier = _earlier(run, records, today)
    ended = joined_with(ended, earlier, run.config.fail_on)
    ended = replace(ended, reason=f"{ended.reason}; seed {run.config.seed}")
    report = replace(_report(run, "completed", ended, records), earlier=earlier)
    rests_on = calibration(run.looking, run.prompts, run.config.alpha, run.passes["all"], run.passes["each"])
    return replace(report, acceptances=acceptances, calibration=rests_on)


def _earlier(run: Run, records: Sequence[CandidateRecord], today: date) -> tuple[EarlierFinding, ...]:
    """With ``--keep``, what earlier runs of the model found besides and nobody accepted; what this one found is kept for the next."""
    keep, digest = run.config.keep, digest_of(run)
    if keep is None:
        return ()
    earlier = found_earlier(keep, digest, records)
    remember(keep, digest, run.config.seed, records)
    return standing(earlier, run.config.accept, digest, today)


def _report(run: Run, status: Any, ended: Exit, records: tuple[CandidateRecord, ...]) -> ScanReport:
    sweeps = tuple(group.record for group in run.groups if group.record)
    return ScanReport(
        **envelope("scan", run.config, run.inspection, run.suspect),
        status=status,
        exit=ended,
        timings=run.timings,
        coverage=coverage(run),
        candidates=records,
        sweeps=sweeps,
        adapters=file_records(file for adapter in run.adapters for file in adapter.files),
        embeddings=learned_records(run.embeddings),
        recovery=run.recovery,
    )
