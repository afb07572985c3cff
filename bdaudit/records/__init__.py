"""The records a report is made of: frozen dataclasses, one envelope for the three verbs, and a module for each of them."""

from bdaudit.records.envelope import (
    SCHEMA_VERSION,
    Check,
    Coverage,
    Environment,
    Estimate,
    Exit,
    FileRecord,
    LearnedRecord,
    ModelRecord,
    NotMeasured,
    Report,
    Skipped,
    TensorDigest,
    UnauditedWeights,
    UnderstoodText,
    VariantRun,
    Verdict,
)
from bdaudit.records.scan import (
    SIGNALS,
    AcceptanceRecord,
    Calibration,
    CandidateRecord,
    CandidateVerdict,
    EarlierFinding,
    ExposedPart,
    Exposure,
    GainPoint,
    Localisation,
    PromptRecord,
    RecoveryRecord,
    RoundRecord,
    ScanReport,
    SignalRecord,
    SwapRecord,
    SweepRecord,
)
from bdaudit.records.unlearn import (
    AppliedAdapter,
    Attempt,
    CanaryLeft,
    CanaryRecord,
    ChangedTensor,
    CleaningPoint,
    CleaningRecord,
    ContributorRecord,
    LossPoint,
    UnlearnReport,
)
from bdaudit.records.verify import AttackRecord, EvidenceRecord, Metric, ReachRecord, VerifyReport

__all__ = [
    "SCHEMA_VERSION", "SIGNALS", "AcceptanceRecord", "AppliedAdapter", "AttackRecord", "Attempt", "Calibration", "CanaryLeft",
    "CanaryRecord", "CandidateRecord", "CandidateVerdict", "ChangedTensor", "Check", "CleaningPoint", "CleaningRecord",
    "ContributorRecord", "Coverage", "EarlierFinding", "Environment",
    "Estimate", "EvidenceRecord", "Exit", "ExposedPart", "Exposure", "FileRecord", "GainPoint", "LearnedRecord", "Localisation",
    "LossPoint", "Metric", "ModelRecord", "NotMeasured", "PromptRecord", "ReachRecord", "RecoveryRecord", "Report", "RoundRecord",
    "ScanReport",
    "SignalRecord", "Skipped", "SwapRecord", "SweepRecord", "TensorDigest", "UnauditedWeights", "UnderstoodText", "UnlearnReport",
    "VariantRun", "Verdict", "VerifyReport",
]  # fmt: skip
