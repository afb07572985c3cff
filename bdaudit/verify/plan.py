"""What a run draws, and what looks at it: the rule, each trigger's trial and forms, the pictures of quality."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import Tensor

from bdaudit.config import VerifyConfig
from bdaudit.measure.context_prompts import with_context
from bdaudit.measure.grader import Extractor, Grader
from bdaudit.measure.prompts import default_prompts
from bdaudit.models.tokens import Tokenizer
from bdaudit.records import NotMeasured
from bdaudit.verify import pictures
from bdaudit.verify.attack import PairedRule, PictureRule, Rule, TextRule, distances_space
from bdaudit.verify.evidence import looked_at
from bdaudit.verify.gallery import Pair, Shot
from bdaudit.verify.trials import Trial, draw_shots, plan_trial
from bdaudit.verify.trigger_forms import Form, plan_forms


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is drawn, and what looks at it."""

    grader: Grader | NotMeasured
    extractor: Extractor | NotMeasured
    trials: dict[str, tuple[Trial, Rule] | NotMeasured]
    """Trigger → its pictures and what counts as a hit on them, or why it cannot be tested."""
    forms: dict[str, tuple[Form, ...]]
    """Trigger → the pictures that tell how far it reaches."""
    shots: tuple[Shot, ...]
    other: tuple[Shot, ...]
    real: Tensor | NotMeasured | None

    def usable(self) -> list[Trial]:
        """Trials of the triggers that can be tested."""
        return [found[0] for found in self.trials.values() if not isinstance(found, NotMeasured)]

    def tried(self, trigger: str) -> tuple[Trial, Rule]:
        """The pictures and the rule of a trigger that can be tested."""
        found = self.trials[trigger]
        assert not isinstance(found, NotMeasured)
        return found

    def hopeless(self, config: VerifyConfig) -> bool:
        """Whether no picture would give a figure, for want of a grader; pairs of pictures always give one."""
        return isinstance(self.grader, NotMeasured) and config.baseline is None and not self.usable() and not isinstance(self.real, Tensor)

    def without(self, triggers: Collection[str]) -> Plan:
        """The plan for the other triggers."""
        return replace(self, trials={trigger: found for trigger, found in self.trials.items() if trigger not in triggers})

    def audited_shots(self) -> list[Shot]:
        """What the audited model draws."""
        forms = (form for trial in self.usable() for form in self.forms[trial.trigger])
        reach = (shot for form in forms for shot in (*form.clean, *form.changed, *form.floor))
        return [*self.shots, *(shot for trial in self.usable() for shot in trial.shots()), *reach]

    def pairs(self, config: VerifyConfig) -> list[Pair]:
        """The pairs whose attention is recorded; none where no pictures are wanted."""
        return [] if config.save_images is None else [pair for trial in self.usable() for pair in looked_at(trial)]

    def compared_shots(self) -> list[Shot]:
        """What the model draws that quality is compared with: the same prompts, and others for its own spread."""
        return [*self.shots, *self.other]

    def reference_shots(self) -> list[Shot]:
        """What the reference draws: those, and the trials without null and floor."""
        return [*self.compared_shots(), *(shot for trial in self.usable() for shot in (*trial.clean, *trial.triggered))]


def rule_for(config: VerifyConfig, target: Tensor | None, grader: Grader | NotMeasured) -> Rule | NotMeasured:
    """The sharpest rule that what is known of the target allows."""
    if target is not None:
        return PictureRule(target, config.target_at)
    if not config.target_text and not config.swaps:
        return PairedRule(distances_space(grader))
    return grader if isinstance(grader, NotMeasured) else TextRule(grader, config.target_text, config.swaps)


def make_plan(
    config: VerifyConfig, tokenizer: Tokenizer, rule: Rule | NotMeasured, grader: Grader | NotMeasured, extractor: Extractor | NotMeasured
) -> Plan:
    prompts = config.prompts or default_prompts()
    trials = {trigger: _trial(config, tokenizer, rule, trigger, prompts) for trigger in config.triggers}
    tested = {trigger: found[0] for trigger, found in trials.items() if not isinstance(found, NotMeasured)}
    return Plan(
        grader=grader,
        extractor=extractor,
        trials=trials,
        forms={trigger: plan_forms(tokenizer, trial, config.reach, config.triggers) for trigger, trial in tested.items()},
        shots=draw_shots(prompts, config.n, config.seed),
        other=draw_shots(prompts, config.n, config.seed, "other"),
        real=_real(config, extractor),
    )


def _trial(
    config: VerifyConfig, tokenizer: Tokenizer, rule: Rule | NotMeasured, trigger: str, prompts: tuple[str, ...]
) -> tuple[Trial, Rule] | NotMeasured:
    if isinstance(rule, NotMeasured):
        return rule
    bound = with_context(prompts, config.contexts, config.seed) if config.contexts else prompts
    trial = plan_trial(
        tokenizer, trigger, bound, config.n, config.seed, rule.skip,
        null=rule.needs_null, positions=config.positions, exclude=config.triggers,
    )  # fmt: skip
    return trial if isinstance(trial, NotMeasured) else (replace(trial, contexts=config.contexts), rule)


def _real(config: VerifyConfig, extractor: Extractor | NotMeasured) -> Tensor | NotMeasured | None:
    """Features of the real pictures; None where none were given."""
    if config.real_images is None:
        return None
    if isinstance(extractor, NotMeasured):
        return extractor
    return pictures.folder_features(pictures.picture_files(config.real_images), extractor)
