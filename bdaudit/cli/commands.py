"""What a person types: the three commands, whose flags are their configs' fields. What depends on several flags is settled here."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import bdaudit
from bdaudit.cli.examples import EXAMPLES, SCAN_EXAMPLES, UNLEARN_EXAMPLES, VERIFY_EXAMPLES
from bdaudit.cli.options import Delivery, Given, Headed, options, takes
from bdaudit.config import JOBS, RunConfig, ScanConfig, VerifyConfig, unlearn_config
from bdaudit.config.flag import Flag, flags
from bdaudit.config.run import WHOLE, need_apart
from bdaudit.errors import UsageError

if TYPE_CHECKING:
    from bdaudit.cli.verbs import Config

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


@dataclass(frozen=True)
class SuspectedPrompts:
    """What to look for."""

    suspected_prompts: Annotated[tuple[str, ...], Flag("suspects")] = ()
    """The same as --prompt, from a UTF-8 file, one a line."""


@app.command(cls=Headed, epilog=SCAN_EXAMPLES)
@takes(ScanConfig, SuspectedPrompts)
def scan(given: Given) -> int:
    """Find texts that set a backdoor off. Each candidate is put into harmless prompts; what it does to the model is compared with
    harmless texts of its kind, and ranked."""
    given["suspected"] = tuple(dict.fromkeys((*given.get("suspected", ()), *given.pop("suspected_prompts", ()))))
    from bdaudit.cli.seeds import fresh_seed

    if "keep" in given and "state" in given:
        raise UsageError("--keep holds all that --state does, and stays; give one")
    given.setdefault("state", None if "keep" in given else _beside_report(given, ".state"))
    if "seed" in given and "seed_from" in given:
        raise UsageError("--seed and --seed-from both say what the seed is; give one")
    drawn = "seed" not in given
    given.setdefault("seed", fresh_seed(given["state"]))
    if given.get("pictures"):
        given.setdefault("pictures_to", _beside_report(given, ".pictures", of=".html"))
    return _finish("scan", ScanConfig, given, drawn=drawn)


@app.command(cls=Headed, epilog=UNLEARN_EXAMPLES)
@takes(*JOBS)
def unlearn(given: Given) -> int:
    """Remove a backdoor. With a --trigger, the model is made to do with it what it does without. Without one, --merge-with merges the model
    with fine-tunes of the same base, and --method cleanclip cleans its text encoder. The result is checked, and written as a new directory.
    MODEL itself stays as it is."""
    from bdaudit.untrusted.hub_snapshot import place_of

    if "patch" not in given:
        given.setdefault("out", _beside(place_of(given["model"]), "-unlearned"))
    result = given.get("out") or given.get("patch")
    state = _beside(result, ".state") if result else None
    return _finish("unlearn", lambda **settings: unlearn_config(settings, state), given)


@app.command(cls=Headed, epilog=VERIFY_EXAMPLES)
@takes(VerifyConfig)
def verify(given: Given) -> int:
    """Measure what is left. How often each trigger still works, and what the pictures are worth, with intervals, against
    bounds. Without a trigger only quality is measured, and a bound on attack success is inconclusive."""
    from bdaudit.verify.policy import read_policy

    for name, value in (read_policy(given["policy"]) if "policy" in given else {}).items():
        given.setdefault(name, value)
    given.setdefault("save_images", _beside_report(given, ".pictures", of=".html"))
    given.setdefault("state", _beside_report(given, ".state"))
    return _finish("verify", VerifyConfig, given)


def _beside_report(given: Given, suffix: str, of: str = "") -> Path | None:
    """Beside the first report, or the first with the suffix ``of``; nowhere where there is none."""
    reports: tuple[Path, ...] = given.get("report", ())
    return next((path.with_suffix(suffix) for path in reports if path.suffix.lower() == of or not of), None)


def _beside(path: Path, end: str) -> Path | None:
    """A path's name with ``end`` at its end; a name of its own, where the path is ``.`` or ends in ``..``; none beside the root."""
    whole = path if path.name and path.name != ".." else path.resolve()
    return whole.with_name(f"{whole.name}{end}") if whole.name else None


def _finish(command: str, made: Callable[..., Config], given: Given, *, drawn: bool = False) -> int:
    """Makes the config and runs it, or says what that would do; ``drawn`` is whether its seed is nobody's who typed it."""
    from bdaudit.cli.once import check_once, mark_of
    from bdaudit.cli.outcome import carry_out, rehearse
    from bdaudit.report.deliver import Output

    delivery = Delivery(**{name: given.pop(name) for name in options(Delivery) if name in given})
    output = Output(reports=delivery.report, json=delivery.json, quiet=delivery.quiet)
    config = made(**given)
    written = (*(("--report", path) for path in delivery.report), *config.written)
    need_apart(written)
    _check_outside(config, written)
    _check_unread(given.opened, written)
    _check_own(config, given.opened)
    _check_finite(config)
    if delivery.dry_run:
        return rehearse(command, config, output)
    if delivery.once:
        check_once(delivery.report, json_too=delivery.json)
    opened = [*given.opened, *_clip_of(config)]
    return carry_out(command, config, output, mark_of(command, config, delivery.report, opened, drawn=drawn) if delivery.once else None)


def _check_outside(config: RunConfig, written: Sequence[tuple[str, Path]]) -> None:
    """Raises ``UsageError`` where a path that would be written lies in a model that is read, or in its folder of the hub's cache."""
    from bdaudit.untrusted.hub_cache import cache_root
    from bdaudit.untrusted.hub_snapshot import home_of

    for directory in config.models:
        home, cache = home_of(directory), cache_root().resolve()
        of = "the model" + " directory" * directory.is_dir() if home == directory.resolve() else f"the cache's {home.name}"
        for flag, path in written:
            if path.resolve().is_relative_to(home):
                raise UsageError(f"{flag} {path} lies in {of}, which is never written; name a place outside it")
            if home.is_relative_to(cache) and path.resolve().is_relative_to(cache):
                raise UsageError(f"{flag} {path} lies in the hub's cache, which is never written; name a place outside it")


_OWN = {"--accept": "write the entries to a file of your own", "--clip": "name a CLIP that the maker did not touch"}


def _check_own(config: RunConfig, opened: Sequence[tuple[str, Path]]) -> None:
    """Raises ``UsageError`` where what lets findings through lies in a model or an adapter, by its name or at a link's end: their makers
    would let their own backdoors through."""
    from bdaudit.models.adapter_file import is_adapter_directory
    from bdaudit.untrusted.hub_snapshot import home_of

    folders = [path.parent for *_, path, _ in getattr(config, "adapters", ())]
    folders += [path.parent for path, _ in getattr(config, "embeddings", ())]
    adapters = [home_of(folder) for folder in folders if is_adapter_directory(folder) or home_of(folder) != folder.resolve()]
    for flag, path in (*(each for each in opened if each[0] == "--accept"), *_clip_of(config)):
        for home in (*map(home_of, config.models), *adapters):
            if any(place.is_relative_to(home) for place in (path.resolve(), Path(os.path.abspath(path)))):
                raise UsageError(f"{flag} {path} lies in {home}, whose maker wrote it; {_OWN[flag]}")


def _clip_of(config: RunConfig) -> list[tuple[str, Path]]:
    """``--clip`` and its place, where that is a folder."""
    clip: str = getattr(config, "clip", "")
    return [("--clip", Path(clip.removeprefix("local-dir:")))] if clip.startswith("local-dir:") else []


def _check_unread(opened: Sequence[tuple[str, Path]], written: Sequence[tuple[str, Path]]) -> None:
    """Raises ``UsageError`` where a path that would be written is one that is read, or one of the two lies in the other.

    Beside the pictures of ``--real-images`` there is room: nothing but pictures is read there.
    """
    for (reads, source), (flag, path) in product(opened, written):
        one, other = path.resolve(), source.resolve()
        within = one.is_relative_to(other) and reads != "--real-images"
        if one == other or within or (flag in WHOLE and other.is_relative_to(one)):
            raise UsageError(f"{flag} {path} would write over {reads} {source}, which the run reads; name another place")


def _check_finite(config: RunConfig) -> None:
    """Raises ``UsageError`` where a figure of ``config`` is NaN or infinite: a bound of NaN would gate nothing."""
    for name, flag in flags(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag.name} is {value}; expected a finite number")
