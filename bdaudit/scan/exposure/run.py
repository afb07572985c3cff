"""`scan --expose`: each part exposed in turn, every text read off its copy, and the null and p of what is left. One signal a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bdaudit.checkpoints import State
from bdaudit.config import ScanConfig
from bdaudit.measure.probe import Stage
from bdaudit.models.suspect import Suspect
from bdaudit.progress import Progress
from bdaudit.records import ExposedPart, Exposure, NotMeasured, SignalRecord
from bdaudit.scan.exposure.methods import MOST, STOP, exposed
from bdaudit.scan.exposure.parts import TEXT_ENCODER, UNET, Part, denoiser, encoder
from bdaudit.scan.exposure.readout import Readout
from bdaudit.scan.exposure.residual import NEAREST, Residual, ResidualNull, fit

SIGNALS = {UNET: "left in the exposed UNet", TEXT_ENCODER: "left in the exposed text encoder"}


@dataclass(frozen=True)
class Exposed:
    """What the copies gave: the report's record, and each text's signals by name; none where no copy was made."""

    record: Exposure | NotMeasured = field(default_factory=lambda: NotMeasured(reason="only with --expose"))
    signals: dict[str, dict[str, SignalRecord]] = field(default_factory=dict)

    def of(self, text: str) -> dict[str, SignalRecord]:
        """The signals of one text."""
        return self.signals.get(text, {})


@dataclass(frozen=True)
class _Task:
    suspect: Suspect
    config: ScanConfig
    state: State
    progress: Progress


def expose(
    suspect: Suspect, stage: Stage, config: ScanConfig, prompts: Sequence[str], controls: Sequence[str], texts: Sequence[str],
    state: State, progress: Progress,
) -> Exposed:  # fmt: skip
    """Both parts, one after the other; ``texts`` holds the ``controls``. The model is as it was when this returns."""
    task = _Task(suspect, config, state, progress)
    records: dict[str, ExposedPart] = {}
    said: dict[str, str | NotMeasured] = {}
    signals: dict[str, dict[str, SignalRecord]] = {text: {} for text in texts}
    for name in SIGNALS:
        part: Part
        if name == UNET:
            part = denoiser(suspect, stage, prompts, config.guidance_scale, config.seed)
        else:
            part = encoder(suspect, stage, prompts, config.seed)
        records[name], residuals = _read(task, part, name, texts)
        null = _null(records[name], [residuals[text] for text in controls if text in residuals])
        said[name] = null if isinstance(null, NotMeasured) else _words(null)
        if not isinstance(null, NotMeasured):
            for text, found in residuals.items():
                signals[text][SIGNALS[name]] = SignalRecord(value=found.left, score=null.score(found), p=null.p(found))
    return Exposed(Exposure(method=config.expose, stop=STOP, parts=records, signals=said), signals)


def _read(task: _Task, part: Part, name: str, texts: Sequence[str]) -> tuple[ExposedPart, dict[str, Residual]]:
    """The copy, and what is left of every text in it; nothing where the copy failed."""
    key = f"expose-{task.config.expose}-{name.replace(' ', '-')}"
    with exposed(part, task.config.expose, task.config.seed, task.state, name, task.progress) as record:
        if not record.reached:
            return record, {}
        residuals: dict[str, Residual] = {}
        for done, (text, found) in enumerate(Readout(part, task.state, key).residuals(texts), start=1):
            residuals[text] = found
            task.progress(f"reading the exposed {name}", done, len(texts))
        return record, residuals


def _null(record: ExposedPart, controls: Sequence[Residual]) -> ResidualNull | NotMeasured:
    if not record.reached:
        last = record.curve[-1]
        return NotMeasured(reason=f"captions still had {100 * last.gain:.0f} % of their gain after {last.step} of {MOST} steps")
    try:
        return fit(controls)
    except ValueError as error:
        return NotMeasured(reason=f"the harmless controls give no null in this copy ({error})")


def _words(null: ResidualNull) -> str:
    return (
        f"standard score among the {NEAREST} of {len(null.left)} controls with about the same effect, of which "
        f"{100 * sorted(null.left.tolist())[len(null.left) // 2]:.0f} % is left in the median; exponential predictive tail"
    )
