"""What a person types: the three commands, whose flags are their configs' fields. What depends on several flags is settled here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from bdaudit.cli.checks import check, clip_of
from bdaudit.cli.defaults import Reports, Settings, repair_config, scan_config, verify_config
from bdaudit.cli.examples import EXAMPLES, SCAN_EXAMPLES, UNLEARN_EXAMPLES, VERIFY_EXAMPLES
from bdaudit.cli.options import Delivery, options
from bdaudit.cli.typed_command import Given, Headed, takes
from bdaudit.config import JOBS, ScanConfig, VerifyConfig
from bdaudit.config.flag import Flag
from bdaudit.version import __version__

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
        typer.echo(f"bdaudit {__version__}")
        raise typer.Exit


@app.callback()
def bdaudit_command(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and leave.")] = False,
) -> None:
    """Audit text-to-image models for backdoors: find triggers, remove them, measure what is left.

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
    return _finish("scan", scan_config, given)


@app.command(cls=Headed, epilog=UNLEARN_EXAMPLES)
@takes(*JOBS)
def unlearn(given: Given) -> int:
    """Remove a backdoor. With a --trigger, the model is made to do with it what it does without. Without one, --merge-with merges the model
    with fine-tunes of the same base, and --method cleanclip cleans its text encoder. The result is checked, and written as a new directory.
    MODEL itself stays as it is."""
    return _finish("unlearn", repair_config, given)


@app.command(cls=Headed, epilog=VERIFY_EXAMPLES)
@takes(VerifyConfig)
def verify(given: Given) -> int:
    """Measure what is left. How often each trigger still works, and what the pictures are worth, with intervals, against
    bounds. Without a trigger only quality is measured, and a bound on attack success is inconclusive."""
    return _finish("verify", verify_config, given)


def _finish(command: str, made: Callable[[Settings, Reports], Config], given: Given) -> int:
    """Makes the config and runs it, or says what that would do."""
    from bdaudit.cli.default_state import planned, wanted, with_state
    from bdaudit.cli.once import check_once, mark_of
    from bdaudit.cli.outcome import carry_out, rehearse, tell
    from bdaudit.cli.output import output_of
    from bdaudit.cli.repeat import repeated
    from bdaudit.report.deliver import TABLES

    delivery = Delivery(**{name: given.pop(name) for name in options(Delivery) if name in given})
    output = output_of(delivery)
    drawn = command == "scan" and "seed" not in given
    config = made(given, output.files)
    check(config, given.opened, output.places)
    if delivery.dry_run:
        return rehearse(command, config, output, given.note, planned(command, config, drawn=drawn))
    if delivery.once:
        check_once(output.files, stdout_too=output.stdout != TABLES)
    opened = [*given.opened, *clip_of(config)]
    mark = mark_of(command, config, output.files, opened, drawn=drawn) if delivery.once else None
    if wanted(config):
        config, why = with_state(command, config, given.opened, output.places, drawn=drawn)
        tell(f"nothing is kept of this run, so that it cannot go on where it is interrupted: {why}" if why else "")
    by_itself = drawn and not getattr(config, "seed_from", "")
    repeat = repeated(sys.argv[1:], seed=config.seed if by_itself else None, settings=delivery.settings)
    return carry_out(command, config, output, mark, given.note, repeat)
