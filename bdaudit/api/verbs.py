"""The three verbs as functions: a config of the same fields as the command line's, and the report that its run would write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from bdaudit.api.options import Place, RunOptions, ScanOptions, UnlearnOptions, VerifyOptions
from bdaudit.config import ALL_VARIANTS, JOBS, RunConfig, ScanConfig, VerifyConfig
from bdaudit.progress import Progress, silent

if TYPE_CHECKING:
    from bdaudit.cli.verbs import Config
    from bdaudit.models.suspect import Suspect
    from bdaudit.records import Report, ScanReport, UnlearnReport, VerifyReport

_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip
"""What libraries read once, when they are first imported; what the program has set itself stays."""


def scan(model: Place, **options: Unpack[ScanOptions]) -> ScanReport:
    """Find texts that set a backdoor off.

    ``model`` is a diffusers directory, a checkpoint in one .safetensors file, or the hub id of a model in the local cache. ``candidates``
    are the texts to probe, the built-in list where neither they nor ``sweeps`` nor ``suspected`` are given. Every option is a field of
    ``bdaudit.config.ScanConfig``.

    The report is what ``bdaudit scan --json`` writes; ``report.exit`` says how the command would have ended.

    Raises:
        UsageError: an option is wrong, or options do not go together.
        RefusedError: loading the model would run code, open a pickle or leave its directory.
        InconclusiveError: its architecture is not supported, or nothing can be tested.
        BdauditError: it is damaged, or the machine lacks what the run needs.
    """
    from bdaudit.cli.defaults import scan_config

    return cast("ScanReport", _run("scan", (ScanConfig,), scan_config, model, options))


def unlearn(model: Place, **options: Unpack[UnlearnOptions]) -> UnlearnReport:
    """Remove a backdoor, and write the repaired model as a new directory, ``out``; by default beside ``model``.

    ``triggers`` names what sets it off. Which other options ask for which job is as on the command line; ``report.checks`` says whether
    the repaired model passed. Raises as ``scan``.
    """
    from bdaudit.cli.defaults import repair_config

    return cast("UnlearnReport", _run("unlearn", tuple(JOBS), repair_config, model, options))


def verify(model: Place, **options: Unpack[VerifyOptions]) -> VerifyReport:
    """Measure how often ``triggers`` still work, and what the pictures are worth, against bounds. Raises as ``scan``."""
    from bdaudit.cli.defaults import verify_config

    return cast("VerifyReport", _run("verify", (VerifyConfig,), verify_config, model, options))


def load(model: Place, **options: Unpack[RunOptions]) -> Suspect:
    """A model of any supported family, inspected and loaded as an audit does: no code of its own is run, and no pickle opened.

    ``encode`` a prompt, ``predict`` from a noisy latent, ``decode`` pictures, ``record_attention`` while it predicts. Raises as ``scan``.
    """
    from bdaudit.measure.opening import inspected, loaded

    settings, _ = _settings((RunConfig,), model, options)
    config = RunConfig(**settings)
    with _quiet():
        return loaded(config, inspected(config, config.model))


def write(report: Report, path: Place) -> None:
    """Write a report whole, its format by the suffix: .json, .html, .sarif, .md, .txt or .intoto.json.

    Raises:
        UsageError: no format has that suffix, or the folder is not there.
        OSError: the disk or the folder refuses.
    """
    from bdaudit.report.deliver import Output
    from bdaudit.report.deliver import write as written

    Output(reports=(Path(path),))
    written(report, Path(path))


def _settings(kinds: tuple[type[Any], ...], model: Place, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Path]]]:
    from bdaudit.api.values import settings_of

    asked = {name: value for name, value in options.items() if name != "progress"}
    return settings_of(kinds, {"model": model, **asked})


def _run(
    command: str, kinds: tuple[type[Any], ...], made: Callable[[dict[str, Any]], Config], model: Place, options: Mapping[str, Any]
) -> Report:
    from bdaudit import state_lock
    from bdaudit.cli.checks import check
    from bdaudit.cli.weight_variants import audited, leave_no_empty_state

    settings, opened = _settings(kinds, model, options)
    config = made(settings)
    check(config, opened, ())
    progress: Progress = options.get("progress", silent)
    try:
        with _quiet():
            report = audited(config, lambda each: _attempted(command, each, progress, raises=config.variant != ALL_VARIANTS))
        state_lock.delivered()
        return report
    finally:
        state_lock.release()
        leave_no_empty_state(config)


def _attempted(command: str, config: Config, progress: Progress, *, raises: bool) -> Report:
    """The report of one run; of one of several variants, a failure is a report too, so that another's finding is not lost."""
    from bdaudit.cli.outcome import failed
    from bdaudit.errors import BdauditError, UsageError

    try:
        return _carried_out(config, progress)
    except UsageError:
        raise
    except BdauditError as error:
        if raises:
            raise
        return failed(command, config, error.code, str(error))


def _carried_out(config: Config, progress: Progress) -> Report:
    from bdaudit.cli.given_texts import check_encoded, texts_of
    from bdaudit.cli.verbs import carried_out
    from bdaudit.targets import try_written

    try_written(config.written)
    texts = texts_of(config)
    check_encoded(texts)
    return replace(carried_out(config, progress), understood=texts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A block in which libraries that are imported first say nothing."""
    added = {name: value for name, value in _QUIET.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
