"""`scan --expose`: each part exposed in turn, every text read off its copy, and the null and p of what is left. One signal a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bdaudit.config import ScanConfig
from bdaudit.records import ExposedPart, Exposure, NotMeasured, SignalRecord
from bdaudit.scan.context import ScanContext
from bdaudit.scan.exposure.copy import Stop, exposed
from bdaudit.scan.exposure.parts import TEXT_ENCODER, UNET, Part, denoiser, encoder
from bdaudit.scan.exposure.readout import Readout
from bdaudit.scan.exposure.residual import NEAREST, Residual, ResidualNull, fit

SIGNALS = {UNET: "left in the exposed UNet", TEXT_ENCODER: "left in the exposed text encoder"}


@dataclass(frozen=True)
class Exposed:
    """What the copies gave."""

    record: Exposure | NotMeasured = field(default_factory=lambda: NotMeasured(reason="only with --expose"))
    signals: dict[str, dict[str, SignalRecord]] = field(default_factory=dict)
    """Text → name → signal; of no text where no copy was made."""


def expose(
    context: ScanContext, config: ScanConfig, prompts: Sequence[str], controls: Sequence[str], texts: Sequence[str], stop: Stop
) -> Exposed:
    """Both parts, one after the other; ``texts`` holds the ``controls``. The model is as it was when this returns."""
    parts: dict[str, Callable[[], Part]] = {
        UNET: lambda: denoiser(context.suspect, context.draws, prompts, config.guidance, config.seed),
        TEXT_ENCODER: lambda: encoder(context.suspect, context.draws, prompts, config.seed),
    }
    records: dict[str, ExposedPart] = {}
    said: dict[str, str | NotMeasured] = {}
    signals: dict[str, dict[str, SignalRecord]] = {text: {} for text in texts}
    for name, part in parts.items():
        records[name], residuals = _read(context, part(), config.expose, name, texts, stop)
        null = _null(records[name], [residuals[text] for text in controls if text in residuals], stop)
        said[name] = null if isinstance(null, NotMeasured) else _words(null)
        if not isinstance(null, NotMeasured):
            for text, residual in residuals.items():
                signals[text][SIGNALS[name]] = SignalRecord(value=residual.left, score=null.score(residual), p=null.p(residual))
    return Exposed(Exposure(method=config.expose, stop=stop.gain, parts=records, signals=said), signals)


def _read(
    context: ScanContext, part: Part, method: str, name: str, texts: Sequence[str], stop: Stop
) -> tuple[ExposedPart, dict[str, Residual]]:
    """The copy, and what is left of every text in it; nothing where the copy failed."""
    key = f"expose-{method}-{name.replace(' ', '-')}"
    with exposed(part, method, context.seed, context.state, name, context.progress, stop) as record:
        if not record.reached:
            return record, {}
        residuals: dict[str, Residual] = {}
        for done, (text, residual) in enumerate(Readout(part, context.state, key).residuals(texts), start=1):
            residuals[text] = residual
            context.progress(f"reading the exposed {name}", done, len(texts))
        return record, residuals


def _null(record: ExposedPart, controls: Sequence[Residual], stop: Stop) -> ResidualNull | NotMeasured:
    if not record.reached:
        last = record.curve[-1]
        return NotMeasured(reason=f"captions still had {100 * last.gain:.0f} % of their gain after {last.step} of {stop.steps} steps")
    try:
        return fit(controls)
    except ValueError as error:
        return NotMeasured(reason=f"the harmless controls give no null in this copy ({error})")


def _words(null: ResidualNull) -> str:
    return (
        f"standard score among the {NEAREST} of {len(null.left)} controls with about the same effect, of which "
        f"{100 * sorted(null.left.tolist())[len(null.left) // 2]:.0f} % is left in the median; exponential predictive tail"
    )
