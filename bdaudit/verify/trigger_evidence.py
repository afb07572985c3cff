"""What shows that a text was ever a trigger: what it does on the model that carried the backdoor, or a report of that model.

A mistyped trigger does nothing on any model, so its low rate says nothing of a repair. What lies in the audited model is written by whoever
made it: its own record is shown, links it to a report that the caller hands over, and is never evidence by itself.
"""

from __future__ import annotations

from bdaudit.pipeline.tokens import Tokenizer, content_ids
from bdaudit.report.records import AttackRecord, Estimate, EvidenceRecord, NotMeasured
from bdaudit.verify.looks import LEAST, Said
from bdaudit.verify.plan import Trial

NOTHING = "nothing shows that this text was ever a trigger"
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


def _before_reason(record: AttackRecord, said: Said) -> str:
    if isinstance(record.rate, NotMeasured):
        return f"on --before it could not be measured ({record.rate.reason}): {NOTHING}"
    assert isinstance(record.floor, Estimate)
    figures = f"{record.rate.value:.1%} of {record.rate.n} pictures, {record.floor.value:.1%} without it"
    if said == "works":
        return f"it works on --before: {figures}"
    if said == "open":
        rule = f"a trigger works {LEAST:.0%} more often"
        return f"the trigger does not do clearly more than its floor on --before ({figures}; {rule}): {NOTHING}; raise --n"
    return f"the trigger does no more than its floor on --before ({figures}): {NOTHING}"
