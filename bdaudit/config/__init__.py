"""One frozen config a job, checked where it is made. Nothing below ``cli`` sees a flag."""

from bdaudit.config.acceptance import Acceptance
from bdaudit.config.apply import ApplyConfig
from bdaudit.config.clean import CleanConfig, PretrainObjective
from bdaudit.config.merge import MergeConfig
from bdaudit.config.repair import DENOISER, TEXT_ENCODER, Component, RepairConfig, Trainable
from bdaudit.config.run import ALL_VARIANTS, Dtype, RunConfig, TriggeredConfig
from bdaudit.config.scan import ScanConfig, Sweep
from bdaudit.config.unlearn import MERGING, CheckedConfig, Method, TrainedConfig, UnlearnConfig
from bdaudit.config.unlearn_job import JOBS, unlearn_config
from bdaudit.config.verify import Evidence, VerifyConfig

__all__ = [
    "ALL_VARIANTS", "DENOISER", "JOBS", "MERGING", "TEXT_ENCODER", "Acceptance", "ApplyConfig", "CheckedConfig", "CleanConfig", "Component",
    "Dtype", "Evidence", "MergeConfig", "Method", "PretrainObjective", "RepairConfig", "RunConfig", "ScanConfig", "Sweep",
    "Trainable", "TrainedConfig", "TriggeredConfig", "UnlearnConfig", "VerifyConfig", "unlearn_config",
]  # fmt: skip
