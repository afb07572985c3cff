"""One frozen config a job, checked where it is made. Nothing below ``cli`` sees a flag."""

from bdaudit.config.repair import DENOISER, MERGING, TEXT_ENCODER, TRAINING, Component, Method, PretrainObjective, Trainable, UnlearnConfig
from bdaudit.config.run import ALL_VARIANTS, Device, Dtype, RunConfig, Verdict
from bdaudit.config.scan import Expose, ScanConfig, Sweep
from bdaudit.config.verify import Evidence, VerifyConfig

__all__ = [
    "ALL_VARIANTS",
    "DENOISER",
    "MERGING",
    "TEXT_ENCODER",
    "TRAINING",
    "Component",
    "Device",
    "Dtype",
    "Evidence",
    "Expose",
    "Method",
    "PretrainObjective",
    "RunConfig",
    "ScanConfig",
    "Sweep",
    "Trainable",
    "UnlearnConfig",
    "Verdict",
    "VerifyConfig",
]
