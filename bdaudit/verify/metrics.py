"""The table of quality figures: each for the audited model, and, where it has one of its own, for the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bdaudit.measure import estimates
from bdaudit.measure.grader import Extractor, Grader
from bdaudit.records import Estimate, Metric, NotMeasured
from bdaudit.verify import quality
from bdaudit.verify.gallery import Gallery, Shot


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The pictures that quality is measured on, by model."""

    model: Gallery
    reference: Gallery | NotMeasured
    shots: tuple[Shot, ...]
    """Prompts as they are, without any trigger; both models hold them."""
    other: tuple[Shot, ...]
    """Independent draws of the same prompts; the reference holds them, where there is one."""
    real: Tensor | NotMeasured | None
    """Features (M, D) of real pictures, by the extractor; None where none were given."""


def measure_metrics(sets: Sets, grader: Grader | NotMeasured, extractor: Extractor | NotMeasured, seed: int) -> dict[str, Metric]:
    """Every figure by name; what could not be measured says why."""
    metrics = {**_by_grader(sets, grader), **_paired(sets, grader)}
    for name in ("kid", "fid"):
        metrics |= _against_sets(name, sets, extractor, seed)
    return metrics


def _measured(compute: Callable[[], Estimate]) -> Estimate | NotMeasured:
    """Figures that too few or degenerate pictures do not give become a reason."""
    try:
        return compute()
    except ValueError as error:
        return NotMeasured(reason=str(error))


def _of(gallery: Gallery | NotMeasured, compute: Callable[[Gallery], Estimate]) -> Estimate | NotMeasured:
    return gallery if isinstance(gallery, NotMeasured) else _measured(lambda: compute(gallery))


# --- one model by itself ----------------------------------------------------------------------


def _by_grader(sets: Sets, grader: Grader | NotMeasured) -> dict[str, Metric]:
    names = ("clip_score", "prompt_following", "diversity")
    if isinstance(grader, NotMeasured):
        return {name: Metric(value=grader, reference=grader, detail="needs a grader") for name in names}
    prompts = [shot.text for shot in sets.shots]
    texts = _text_features(grader, prompts)
    compute: dict[str, tuple[Callable[[Gallery], Estimate], str]] = {
        "clip_score": (lambda g: quality.clip_score(g.features(sets.shots, grader), texts), "100 x cosine of picture and prompt"),
        "prompt_following": (
            lambda g: quality.prompt_following(g.features(sets.shots, grader), texts, prompts),
            "share of other prompts that a picture fits less well than its own",
        ),
        "diversity": (lambda g: quality.diversity(g.features(sets.shots, grader)), "mean pairwise 1 − cosine of the pictures"),
    }
    return {
        name: Metric(value=_of(sets.model, of), reference=_of(sets.reference, of), detail=f"{detail}; grader {grader.name}")
        for name, (of, detail) in compute.items()
    }


def _text_features(grader: Grader, prompts: Sequence[str]) -> Tensor:
    unique = sorted(set(prompts))
    return grader.text_features(unique)[[unique.index(prompt) for prompt in prompts]]


# --- both models on the same prompts and seeds -----------------------------------------------


def _paired(sets: Sets, grader: Grader | NotMeasured) -> dict[str, Metric]:
    none = NotMeasured(reason="it compares this model with the reference")
    if isinstance(sets.reference, NotMeasured):
        return {name: Metric(value=sets.reference, reference=none, detail=text) for name, text in _PAIRED.items()}
    model, reference, shots = sets.model, sets.reference, sets.shots
    pixels = (model.pictures(shots) - reference.pictures(shots)).abs().mean(dim=(1, 2, 3))
    values: dict[str, Estimate | NotMeasured] = {}
    if isinstance(grader, NotMeasured):
        values = dict.fromkeys(("clip_ratio", "diversity_ratio", "distance"), grader)
    else:
        ours, theirs = model.features(shots, grader), reference.features(shots, grader)
        texts = _text_features(grader, [shot.text for shot in shots])
        values["clip_ratio"] = _measured(lambda: estimates.ratio(quality.clip_scores(ours, texts), quality.clip_scores(theirs, texts)))
        values["diversity_ratio"] = _measured(lambda: quality.diversity_ratio(ours, theirs))
        values["distance"] = _measured(lambda: estimates.mean(1 - (ours * theirs).sum(1)))
    values["distance_pixels"] = _measured(lambda: estimates.mean(pixels))
    ends = quality.clipped(model.pictures(shots)) - quality.clipped(reference.pictures(shots))
    values["clipping"] = _measured(lambda: estimates.mean(ends))
    return {name: Metric(value=values[name], reference=none, detail=text) for name, text in _PAIRED.items()}


_PAIRED = {
    "clip_ratio": "mean CLIP score over the reference's, same prompts and seeds",
    "diversity_ratio": "mean pairwise distance of the pictures over the reference's, same prompts and seeds",
    "distance": "mean 1 − cosine of the grader's features to the reference's picture of the same prompt and seed, 0–2",
    "distance_pixels": "mean absolute difference to the reference's picture of the same prompt and seed, 0–1",
    "clipping": "share of colour values at an end of their range, less the reference's, same prompts and seeds, −1 to 1",
}


# --- sets of pictures -------------------------------------------------------------------------

Features = Tensor | NotMeasured


def _against_sets(name: str, sets: Sets, extractor: Extractor | NotMeasured, seed: int) -> dict[str, Metric]:
    """``name`` to the reference, with the reference's own (two seeds of one model) beside it; and to the real pictures, where given."""

    def features(gallery: Gallery | NotMeasured, shots: Sequence[Shot]) -> Features:
        if isinstance(extractor, NotMeasured):
            return extractor
        return gallery if isinstance(gallery, NotMeasured) else gallery.features(shots, extractor)

    def apart(real: Features, fake: Features) -> Estimate | NotMeasured:
        if isinstance(extractor, NotMeasured):
            return extractor
        if isinstance(real, NotMeasured) or isinstance(fake, NotMeasured):
            return next(side for side in (real, fake) if isinstance(side, NotMeasured))
        if name == "fid":
            return _measured(lambda: quality.fid(real, fake))
        return _measured(lambda: quality.kid(real, fake, extractor.gamma, seed))

    seen_by = "" if isinstance(extractor, NotMeasured) else f"; features of {extractor.name}"
    alone = isinstance(sets.reference, NotMeasured) and not isinstance(sets.real, Tensor)  # then its features are of no use
    ours = features(sets.reference if alone else sets.model, sets.shots)
    theirs = features(sets.reference, sets.shots)
    other = features(sets.reference, sets.other)
    floor = apart(other, theirs)
    found = {name: Metric(value=apart(other, ours), reference=floor, detail=f"to the reference model's pictures of other seeds{seen_by}")}
    if not isinstance(sets.reference, NotMeasured):
        found[f"{name}_floor"] = Metric(value=floor, reference=floor, detail=f"two sets of seeds of the reference model{seen_by}")
    if sets.real is not None:
        detail = f"to the pictures of --real-images{seen_by}"
        found[f"{name}_real"] = Metric(value=apart(sets.real, ours), reference=apart(sets.real, theirs), detail=detail)
    return found
