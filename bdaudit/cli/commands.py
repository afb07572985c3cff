"""What a person types: the three commands, their flags and examples. Parse, make the config, one call; no logic of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

import bdaudit
from bdaudit.cli import flags
from bdaudit.cli.examples import EXAMPLES, SCAN_EXAMPLES, UNLEARN_EXAMPLES, VERIFY_EXAMPLES
from bdaudit.cli.flags import (
    AllowPickle,
    BatchSize,
    Device,
    DryRun,
    DtypeFlag,
    Guidance,
    Json,
    Model,
    Prompts,
    Quiet,
    Reports,
    Seed,
    Size,
    State,
    Strict,
    Triggers,
    Variant,
)
from bdaudit.config import Component, Expose, RunConfig, ScanConfig, Trainable, UnlearnConfig, VerifyConfig, unlearn_config

if TYPE_CHECKING:
    from bdaudit.progress import Progress
    from bdaudit.records import Report, ScanReport, UnlearnReport, VerifyReport
    from bdaudit.report.deliver import Output

ConfigT = TypeVar("ConfigT", ScanConfig, UnlearnConfig, VerifyConfig)

app = typer.Typer(
    name="bdaudit",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]},
    epilog=EXAMPLES,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"bdaudit {bdaudit.__version__}")
        raise typer.Exit


@app.callback()
def bdaudit_command(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and leave.")] = False,
) -> None:
    """Audit Stable-Diffusion checkpoints for backdoors: find triggers, remove them, measure what is left.

    Works offline; runs no code of the model.
    """


@app.command(epilog=SCAN_EXAMPLES)
def scan(
    model: Model,
    candidates: Annotated[
        Path | None,
        flags.existing_file(
            "UTF-8 file of texts to probe, one a line. Default: the built-in list, unless --sweep or --prompt says where to look."
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        flags.unset(
            "WHERE",
            "Look for triggers that nobody listed: vocabulary (every entry of the tokenizer, and words of two), unicode (look-alikes, "
            "invisible characters, emoji), pairs (two-word phrases), recovery (by gradients, whatever moves the model most). Repeatable.",
        ),
    ] = None,
    pair_words: Annotated[
        int,
        typer.Option(
            help="Parts that two-part texts are made of: with --sweep pairs the tokenizer's commonest words, with --sweep vocabulary its "
            "rarest beginnings and ends of words; the cost is its square."
        ),
    ] = 1000,
    prompt: Annotated[
        list[str] | None,
        flags.unset("TEXT", "A prompt that may hold a trigger: says which of its words or characters carry it. Repeatable."),
    ] = None,
    suspected_prompts: Annotated[
        Path | None,
        flags.existing_file("The same, UTF-8 file, a prompt a line."),
    ] = None,
    lora: Annotated[
        list[str] | None,
        flags.unset(
            "FILE[:scale]",
            "Audit MODEL with this LoRA (safetensors, or the directory that peft wrote) applied, and say whether a finding comes with it. "
            "Repeatable.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        flags.existing_folder(
            "OTHER_MODEL", "A model of the same shape to exchange parts with: says which part of MODEL carries each finding."
        ),
    ] = None,
    expose: Annotated[
        Expose,
        typer.Option(
            help="Also make a copy in memory unlearn what captions say, by this method, and use what is left of each text there as a "
            "further signal. On small models it found no more than without."
        ),
    ] = "off",
    state: State = None,
    alpha: Annotated[
        float, typer.Option(help="Chance that a scan of a clean model calls anything backdoored (per scan, not per candidate).")
    ] = 0.01,
    fail_on: Annotated[
        Literal["suspicious", "backdoored", "never"],
        typer.Option(help="The verdict from which the exit code is 1. Never changes what is shown."),
    ] = "backdoored",
    n_prompts: Annotated[int, typer.Option(help="Prompts that each candidate is put into. More is slower and surer.")] = 8,
    timesteps: Annotated[
        str, typer.Option(help="Where on the denoising path to probe, as shares of the training timesteps.")
    ] = "1,0.6,0.3",
    guidance_scale: Guidance = 5.0,
    prompts: Prompts = None,
    size: Size = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    variant: Variant = "",
    strict: Strict = False,
    allow_pickle: AllowPickle = False,
    json: Json = False,
    report: Reports = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> int:
    """Find texts that set a backdoor off. Each candidate is put into harmless prompts; what it does to the model is compared with
    harmless texts of its kind, and ranked."""
    output = _output(report, json, quiet)
    config = ScanConfig(
        model=model, candidates=flags.suspects(candidates, "candidates"), sweeps=flags.sweeps(sweep), pair_words=pair_words,
        suspected=flags.prompts_inside(prompt, suspected_prompts), adapters=flags.adapters(lora), reference=reference,
        expose=expose, state=flags.state_beside(state, report), alpha=alpha, fail_on=fail_on, n_prompts=n_prompts,
        timesteps=flags.shares(timesteps), guidance_scale=guidance_scale, prompts=flags.texts(prompts, "prompts"), prompts_file=prompts,
        device=flags.device(device), dtype=dtype, batch_size=batch_size, seed=seed, strict=strict, allow_pickle=allow_pickle,
        size=flags.size(size),
        variant=variant,
    )  # fmt: skip
    _check_outside(config, output)
    return _finish("scan", config, output, _scan, dry_run)


@app.command(epilog=UNLEARN_EXAMPLES)
def unlearn(
    model: Model,
    trigger: Triggers = None,
    out: Annotated[
        Path | None,
        flags.unset(
            "DIR", "Where the repaired model goes; must not exist, or be empty. Default: MODEL-unlearned, beside it; none with --patch."
        ),
    ] = None,
    patch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            show_default=False,
            help="Write the difference alone, as safetensors, to hand on: instead of the directory, or beside --out.",
        ),
    ] = None,
    from_report: Annotated[
        Path | None,
        flags.existing_file("A scan's JSON report of this model: remove all that it calls backdoored."),
    ] = None,
    from_patch: Annotated[
        Path | None,
        flags.existing_file("Apply what --patch wrote for this very model, and train nothing."),
    ] = None,
    lora: Annotated[
        list[str] | None,
        flags.unset("FILE[:scale]", "Merge this LoRA into MODEL first: what is repaired, and written, is both together. Repeatable."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            show_default=False,
            help="Where an interrupted run keeps what it has: the same command goes on from there. Default: beside the result, .state.",
        ),
    ] = None,
    component: Annotated[Component, typer.Option(help="What to repair. auto decides from where the trigger takes effect.")] = "auto",
    trainable: Annotated[
        Trainable,
        typer.Option(
            help="How the UNet is repaired: keys and values in closed form (seconds), or by training cross-attention or all of it. "
            "auto: one after the other until the check passes."
        ),
    ] = "auto",
    steps: Annotated[int, typer.Option(help="Training steps at most.")] = 400,
    n_prompts: Annotated[int, typer.Option(help="Prompts whose denoising paths are trained on.")] = 48,
    learning_rate: Annotated[
        float,
        typer.Option(
            help="How far a step of AdamW moves a tensor, as a share of its root mean square. 0: 0.004 for the UNet, 0.006 for the text "
            "encoder, and five rates to choose from for cleanclip."
        ),
    ] = 0.0,
    attention_weight: Annotated[
        float, typer.Option(help="Share of the attention term in the loss, from 0 up to but not including 1.")
    ] = 0.5,
    guidance_scale: Guidance = 5.0,
    method: flags.MethodFlag = "auto",
    pairs: flags.Pairs = None,
    vision: flags.VisionFlag = "",
    pretrain_objective: flags.Pretrained = "unknown",
    base: Annotated[
        Path | None,
        flags.existing_folder("BASE", "The model that MODEL and every --merge-with were fine-tuned from."),
    ] = None,
    merge_with: Annotated[
        list[str] | None,
        flags.unset(
            "OTHER", "Merge MODEL with this fine-tune of BASE: a directory, or a LoRA as FILE[:scale]. Needs no trigger. Repeatable."
        ),
    ] = None,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="Write the repaired model even if its check does not pass.")] = False,
    prompts: Prompts = None,
    size: Size = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    variant: Variant = "",
    strict: Strict = False,
    allow_pickle: AllowPickle = False,
    json: Json = False,
    report: Reports = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> int:
    """Remove a backdoor. With a --trigger, the model is made to do with it what it does without. Without one, --merge-with merges the model
    with fine-tunes of the same base, and --method cleanclip cleans its text encoder. The result is checked, and written as a new directory.
    MODEL itself stays as it is."""
    output = _output(report, json, quiet)
    out = out or (None if patch else flags.beside(model))
    settings = dict(
        model=model, triggers=flags.triggers(trigger), from_report=from_report, from_patch=from_patch, out=out, patch=patch,
        state=state, component=component, trainable=trainable,
        steps=steps, n_prompts=n_prompts, learning_rate=learning_rate, attention_weight=attention_weight, guidance_scale=guidance_scale,
        keep_failed=keep_failed, prompts=flags.texts(prompts, "prompts"), device=flags.device(device), dtype=dtype, batch_size=batch_size,
        seed=seed, variant=variant, strict=strict, allow_pickle=allow_pickle, size=flags.size(size), method=method, pairs=pairs,
        vision=vision, pretrain_objective=pretrain_objective, base=base, merge_with=flags.contributors(merge_with),
        adapters=flags.adapters(lora),
    )  # fmt: skip
    config = unlearn_config(settings, state=flags.suffixed(out or patch))
    _check_outside(config, output)
    return _finish("unlearn", config, output, _unlearn, dry_run)


@app.command(epilog=VERIFY_EXAMPLES)
def verify(
    model: Model,
    trigger: Triggers = None,
    before: Annotated[
        Path | None,
        flags.existing_folder(
            "MODEL_WITH_IT",
            "The model that carried the backdoor. Each trigger is measured on it too: one that does no more than its floor there proves "
            "nothing. Quality is compared with it unless there is a --reference.",
        ),
    ] = None,
    evidence: Annotated[
        str | None,
        flags.unset(
            "required|none|REPORT",
            "What a low rate rests on. required, the default: --before. REPORT: a JSON report, of your own, of the model that MODEL was "
            "made from. none: nothing; a mistyped trigger then passes.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        flags.existing_folder("TRUSTED_MODEL", "A model that is trusted, to compare quality with on the same prompts and seeds."),
    ] = None,
    real_images: Annotated[
        Path | None,
        flags.existing_folder("DIR", "Pictures to take FID and KID against."),
    ] = None,
    clip: Annotated[
        str, typer.Option(metavar="NAME", help="The grader: an open_clip MODEL/PRETRAINED that is on this machine, or local-dir:PATH.")
    ] = "ViT-L-14/openai",
    target_image: Annotated[
        str | None,
        flags.unset("FILE[@x,y]", "What the backdoor draws: a whole picture, or a patch with its top left corner at pixel x,y."),
    ] = None,
    target_text: Annotated[str, flags.unset("TEXT", "What the backdoor shows, in words; {prompt} stands for the prompt.")] = "",
    swap: Annotated[
        list[str] | None,
        flags.unset("OLD=NEW", "A word of the prompt that the backdoor turns into another. Repeatable."),
    ] = None,
    position: Annotated[
        list[str] | None,
        flags.unset(
            "PLACE",
            "Where in a prompt the trigger is tried: prefix, middle, suffix or replace. Repeatable. Default: wherever it can stand.",
        ),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", help="Pictures for each condition. 73 without a hit is the least that can pass --max-asr 0.05.")
    ] = 200,
    reach: Annotated[
        int, typer.Option(help="Pictures for each other form of a trigger: twice, one word of it, a neighbour. 0 leaves them out.")
    ] = 16,
    steps: Annotated[int, typer.Option(help="Denoising steps for each picture.")] = 12,
    guidance_scale: Guidance = 5.0,
    policy: Annotated[
        Path | None,
        flags.existing_file(
            "TOML: a table [verify] of max_asr, min_clip_score, max_kid, max_fid, min_clip_ratio, max_distance, evidence. A flag wins."
        ),
    ] = None,
    max_asr: Annotated[
        float | None,
        typer.Option(show_default=False, help="Bound on the upper end of the attack success rate's 95 % interval. Default: 0.05."),
    ] = None,
    min_clip_score: Annotated[
        float | None, typer.Option(show_default=False, help="Bound on the lower end of the CLIP score's interval. Default: none.")
    ] = None,
    max_kid: Annotated[
        float | None, typer.Option(show_default=False, help="Bound on the upper end of KID's interval. Default: none.")
    ] = None,
    max_fid: Annotated[float | None, typer.Option(show_default=False, help="Bound on FID. Default: none.")] = None,
    min_clip_ratio: Annotated[
        float | None,
        typer.Option(
            show_default=False, help="With --reference or --before: bound on the CLIP score as a share of that model's. Default: 0.95."
        ),
    ] = None,
    max_distance: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            help="With --reference or --before: bound on the mean same-seed distance to it, 0 to 2, in the grader's features. "
            "Default: none.",
        ),
    ] = None,
    save_images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, show_default=False, help="Where evidence pictures go. Default: beside an HTML report."
        ),
    ] = None,
    state: State = None,
    prompts: Prompts = None,
    size: Size = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    variant: Variant = "",
    strict: Strict = False,
    allow_pickle: AllowPickle = False,
    json: Json = False,
    report: Reports = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> int:
    """Measure what is left. How often each trigger still works, and what the pictures are worth, with intervals, against
    bounds. Without a trigger only quality is measured, and a bound on attack success is inconclusive."""
    from bdaudit.verify.policy import bounds

    output = _output(report, json, quiet)
    picture, at = flags.target(target_image)
    given = {
        "max_asr": max_asr, "min_clip_score": min_clip_score, "max_kid": max_kid, "max_fid": max_fid,
        "min_clip_ratio": min_clip_ratio, "max_distance": max_distance, **flags.evidence(evidence),
    }  # fmt: skip
    config = VerifyConfig(
        model=model, triggers=flags.triggers(trigger), before=before, reference=reference, real_images=real_images, clip=clip,
        target_image=picture, target_at=at, target_text=target_text, swaps=flags.swaps(swap), positions=tuple(position or ()),
        n=n, reach=reach, steps=steps, guidance_scale=guidance_scale, **bounds(policy, given),
        save_images=flags.pictures_beside(save_images, report), state=flags.state_beside(state, report),
        prompts=flags.texts(prompts, "prompts"), device=flags.device(device), dtype=dtype, batch_size=batch_size, seed=seed,
        variant=variant, strict=strict, allow_pickle=allow_pickle, size=flags.size(size),
    )  # fmt: skip
    _check_outside(config, output)
    return _finish("verify", config, output, _verify, dry_run, _lacking)


def _output(reports: list[Path] | None, json: bool, quiet: bool) -> Output:
    from bdaudit.report.deliver import Output

    return Output(reports=tuple(reports or ()), json=json, quiet=quiet)


def _check_outside(config: RunConfig, output: Output) -> None:
    """Raises ``UsageError`` where a report, or another path that would be written, lies in a model that is read."""
    for directory in config.models:
        flags.check_outside(directory, *(("--report", path) for path in output.reports), *config.written)


def _nothing(config: RunConfig) -> tuple[str, ...]:
    return ()


def _finish(
    command: str, config: ConfigT, output: Output, run: Callable[[ConfigT, Progress], Report], dry_run: bool,
    ahead: Callable[[ConfigT], Sequence[str]] = _nothing,
) -> int:  # fmt: skip
    from bdaudit.cli.outcome import carry_out, rehearse

    flags.check_finite(config)
    return rehearse(command, config, output, ahead) if dry_run else carry_out(command, config, output, run, ahead)


def _scan(config: ScanConfig, progress: Progress) -> ScanReport:
    from bdaudit.scan.run import run_scan

    return run_scan(config, progress)


def _unlearn(config: UnlearnConfig, progress: Progress) -> UnlearnReport:
    from bdaudit.unlearn.run import run_unlearn

    return run_unlearn(config, progress)


def _verify(config: VerifyConfig, progress: Progress) -> VerifyReport:
    from bdaudit.verify.rejudge import run_verify

    return run_verify(config, progress)


def _lacking(config: VerifyConfig) -> tuple[str, ...]:
    from bdaudit.verify.preflight import lacking

    return lacking(config)
