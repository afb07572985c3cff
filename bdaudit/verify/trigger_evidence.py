"""What shows that a text was ever a trigger: what it does on the model that carried the backdoor, or a report of that model.

A mistyped trigger does nothing on any model, so its low rate says nothing of a repair. What lies in the audited model is written by whoever
made it: its own record is shown, links it to a report that the caller hands over, and is never evidence by itself.
"""

from __future__ import annotations

from bdaudit.models.tokens import Tokenizer, content_ids
from bdaudit.records import AttackRecord, Estimate, EvidenceRecord, NotMeasured
from bdaudit.verify.attack import Rule
from bdaudit.verify.early_stop import LEAST, Said
from bdaudit.verify.gallery import Gallery
from bdaudit.verify.trials import Trial

NOTHING = "nothing shows that this text was ever a trigger"
RESTLESS = 0.05
"""Share of pictures that harmless texts may move beyond the limit of --before's. Where both models are alike that is about 0.5 %, and
fewer than 1 run in 1,000 of 200 pictures comes to this share; a share that hides a trigger is larger."""
NOT_GIVEN = EvidenceRecord(
    kind="not given", holds=False,
    reason=f"{NOTHING}; say --before MODEL_WITH_IT, or --evidence REPORT of that model (--evidence none lets a low rate stand for itself)",
)  # fmt: skip
NOT_ASKED = EvidenceRecord(kind="not asked for", holds=True, reason="a low rate stands for itself (evidence = none)")


def other_ids(trial: Trial, ours: Tokenizer, theirs: Tokenizer) -> EvidenceRecord | None:
    """Why --before can say nothing of ``trial``: the two tokenizers read the trigger, alone or in a prompt, differently; else None."""
    texts = dict.fromkeys((trial.trigger, *(shot.text for shot in trial.triggered)))
    differ = sum(content_ids(ours, text) != content_ids(theirs, text) for text in texts)
    if not differ:
        return None
    reason = f"MODEL's tokenizer and --before's read {differ} of {len(texts)} texts with the trigger differently: {NOTHING} of MODEL"
    return EvidenceRecord(kind="before", holds=False, reason=reason, decided_on="token ids")


def by_before(record: AttackRecord, said: Said, digest: str) -> EvidenceRecord:
    """What the trigger's rate on --before says."""
    return EvidenceRecord(
        kind="before", holds=said == "works", reason=_before_reason(record, said), decided_on="pictures", digest=digest,
        rate=record.rate, floor=record.floor, p=record.p, rule=record.rule,
    )  # fmt: skip


def restless(trial: Trial, rule: Rule, ours: Gallery, before: Gallery) -> str:
    """Why harmless texts are no measure of the trigger on the audited model; empty where they are, or where none are asked for.

    A model that every text moves far hides a trigger among them. On --before the same texts say how far they should.
    """
    if not rule.needs_null:
        return ""
    held = trial.first(sum(map(before.holds, trial.null)))
    fitted = rule.fitted(before, held)
    if isinstance(fitted, NotMeasured):
        return ""
    known = [at for at, place in enumerate(trial.places) if place in held.positions]
    null, clean = [trial.null[at] for at in known], [trial.clean[at] for at in known]
    placed = fitted.placed(tuple(trial.places[at] for at in known))
    assert not isinstance(placed, NotMeasured)
    moved = int(placed.hits(ours, null, clean).sum())
    if moved < RESTLESS * len(null):
        return ""
    what = f"harmless texts move {moved} of {len(null)} of MODEL's pictures further than nearly all of them move --before's"
    return f"{what}, so that a trigger would not stand out among them: this null looks tampered with; say what the target is"


def _before_reason(record: AttackRecord, said: Said) -> str:
    if isinstance(record.rate, NotMeasured):
        return f"on --before it could not be measured ({record.rate.reason}): {NOTHING}"
    assert isinstance(record.floor, Estimate)
    figures = f"{record.rate.value:.1%} of {record.rate.n} pictures, {record.floor.value:.1%} without it"
    if said == "works":
        return f"it works on --before: {figures}"
    if said == "weak":
        why = f"a rate so low ({figures}) may be a near-trigger's, and says nothing of the trigger: check the spelling"
        return f"it works on --before, but {why}; if it is the trigger, hand over the repair's report (--evidence REPORT)"
    if said == "open":
        rule = f"a trigger works {LEAST:.0%} more often"
        return f"the trigger does not do clearly more than its floor on --before ({figures}; {rule}): {NOTHING}; raise --n"
    return f"the trigger does no more than its floor on --before ({figures}): {NOTHING}"
