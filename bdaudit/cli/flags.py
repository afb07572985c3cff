"""The flags that the three verbs share, and how the text of a flag becomes a value."""

from __future__ import annotations

import math
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from bdaudit.config import Dtype, Evidence, Method, PretrainObjective, RunConfig, Sweep
from bdaudit.errors import UsageError


def existing_file(text: str) -> Any:
    """An option that names a file to read."""
    return typer.Option(metavar="FILE", exists=True, dir_okay=False, show_default=False, help=text)


def existing_folder(metavar: str, text: str) -> Any:
    """An option that names a folder to read."""
    return typer.Option(metavar=metavar, exists=True, file_okay=False, show_default=False, help=text)


def unset(metavar: str, text: str) -> Any:
    """An option whose default, none, says nothing."""
    return typer.Option(metavar=metavar, show_default=False, help=text)


def _folder(model: Path | None) -> Path | None:
    """Raises ``UsageError`` where the model is no directory; of a checkpoint in one file it says what to do."""
    if model is None or model.is_dir():
        return model
    whole = model.is_file() and model.suffix == ".safetensors"
    how = "; a checkpoint in one file is not read yet: get the model as a directory (hf download ORG/NAME --local-dir DIR)" if whole else ""
    what = "is a file" if model.exists() else "does not exist"
    raise UsageError(f"MODEL {model} {what}; expected a directory in diffusers' layout, with model_index.json in it{how}")


Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        callback=_folder,
        show_default=False,
        help="A diffusers directory with safetensors. Read, never written.",
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N. auto is the first GPU, or the CPU; a named device that is missing is an error.")
]
DtypeFlag = Annotated[Dtype, typer.Option("--dtype", help="auto is float32 on the CPU and bfloat16 on a GPU.")]
BatchSize = Annotated[int, typer.Option(help="Latents in one forward pass. Halved when a GPU's memory runs out, and the report says so.")]
Seed = Annotated[int, typer.Option(help="Every random draw follows from it: the same seed gives the same scores.")]
Variant = Annotated[
    str,
    unset(
        "NAME",
        "Which weights to audit where MODEL has several sets: full, a name as fp16, or all (scan and verify: one run each, the worst "
        "counts). Default: full first; weights that are not these, nor their cast to 16 bits, then make no pass (exit 4).",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse a directory that holds a pickle at all, even one that nothing would open.")]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Where a model has no safetensors, load its .bin: tensors alone, never code. Refused without this flag.",
    ),
]
Prompts = Annotated[
    Path | None,
    existing_file("UTF-8 file, a prompt a line, that suit what the model was trained to draw. Default: built-in ones."),
]
Size = Annotated[
    str | None,
    unset("N|WxH", "Size of pictures in pixels, as width and height are given to diffusers. Default: what the model's pipeline draws at."),
]
Json = Annotated[bool, typer.Option("--json", help="Put the report on stdout as one JSON document, and nothing else.")]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="PATH",
        show_default=False,
        help="Also write the report there; the suffix says how: .json, .html or .sarif. Repeatable.",
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", file_okay=False, show_default=False,
        help="Keep what is measured there: the same command resumes. Default: beside the first --report, REPORT.state; else none.",
    ),
]  # fmt: skip
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar on stderr; a line every 30 s instead.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be loaded, run and written, and the rough cost; loads no weights.")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance scale; a guided step is two forward passes.")]
Triggers = Annotated[
    list[str] | None,
    typer.Option(
        "--trigger", metavar="TEXT", show_default=False,
        help="A trigger as it stands in a prompt; \\u020F and <U+020F> are read as that character, in quotes; what else looks like a "
        "character's code or name is refused, with what to type. Repeatable.",
    ),
]  # fmt: skip
MethodFlag = Annotated[
    Method,
    typer.Option(
        "--method",
        help="auto removes named triggers, or merges by dam where --merge-with is given (average, task-arithmetic, ties and dare are plain "
        "merges to compare with); cleanclip cleans the text encoder by --pairs.",
    ),
]
Pairs = Annotated[
    Path | None,
    existing_file("For cleanclip: UTF-8 lines of a picture's path, a tab, its caption; the pictures in the file's folder."),
]
VisionFlag = Annotated[
    str, unset("NAME", "For cleanclip: the CLIP that the text encoder was taken from, as for verify --clip. Without: partial.")
]
Pretrained = Annotated[
    PretrainObjective,
    typer.Option(
        "--pretrain-objective",
        help="For cleanclip: what that CLIP was pre-trained with. Published attack success after cleaning: 0.5 to 4 % where "
        "contrastive alone, 68 to 98 % with a self-supervised term as well. Changes the report's words, not the cleaning.",
    ),
]


def device(value: str) -> str:
    """auto, cpu, cuda or cuda:N; anything else is a ``UsageError``."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", value):
        raise UsageError(f"--device is {value!r}; expected auto, cpu, cuda or cuda:N")
    return value


def texts(path: Path | None, what: str) -> tuple[str, ...]:
    """A file's texts, or none where no file was named; ``what`` names the file in messages."""
    from bdaudit.untrusted.text_files import read_texts

    return read_texts(path, what=what) if path else ()


def suspects(path: Path | None, what: str) -> tuple[str, ...]:
    """A file's texts that may be triggers, or hold one: a line that is written like a character's code or name is read both ways."""
    from bdaudit.spelling.reader import both
    from bdaudit.untrusted.text_files import read_texts

    return read_texts(path, what=what, read=both) if path else ()


def size(value: str | None) -> tuple[int, int] | None:
    """``N`` or ``WxH`` in pixels: width and height."""
    if value is None:
        return None
    sides = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", value, re.ASCII)
    if not sides:
        raise UsageError(f"--size is {value!r}; expected N or WxH in pixels, such as 512 or 768x512")
    return int(sides[1]), int(sides[2] or sides[1])


def sweeps(values: list[str] | None) -> tuple[Sweep, ...]:
    """Names of sweeps, each once."""
    unknown = set(values or ()) - set(get_args(Sweep))
    if unknown:
        raise UsageError(f"--sweep is {', '.join(sorted(unknown))}; expected {', '.join(get_args(Sweep))}")
    return cast(tuple[Sweep, ...], tuple(dict.fromkeys(values or ())))


def adapters(values: list[str] | None) -> tuple[tuple[Path, float], ...]:
    """``FILE`` or ``FILE:scale``, or an adapter's directory; the scale is 1 where none is given."""
    return tuple(_adapter(value) for value in values or ())


def _scaled(value: str) -> tuple[Path, float]:
    scaled = re.fullmatch(r"(.+):([-+]?\d*\.?\d+)", value)
    return (Path(scaled[1]), float(scaled[2])) if scaled and not os.path.exists(value) else (Path(value), 1.0)


def _adapter(value: str) -> tuple[Path, float]:
    from bdaudit.models.adapter_file import adapter_file

    path, scale = _scaled(value)
    if not os.path.exists(path):
        raise UsageError(f"--lora {path}: no such file; expected FILE, FILE:scale or the directory that peft wrote")
    if not math.isfinite(scale):
        raise UsageError(f"--lora {path}: its scale is {scale}; expected a finite number")
    return adapter_file(path), scale


def prompts_inside(values: list[str] | None, path: Path | None) -> tuple[str, ...]:
    """Suspicious prompts from the command line and from a file, each once; both readings of one that could be read either way."""
    from bdaudit.spelling.reader import both

    typed = (text for value in values or () for text in both(value))
    return tuple(dict.fromkeys((*typed, *suspects(path, "suspected prompts"))))


def triggers(values: list[str] | None) -> tuple[str, ...]:
    """Triggers, each once; ``UsageError`` for one that could be read two ways."""
    from bdaudit.spelling.reader import one_text

    return tuple(dict.fromkeys(one_text(value, "--trigger") for value in values or ()))


def contributors(values: list[str] | None) -> tuple[tuple[Path, float], ...]:
    """What a model is merged with: models' directories, scale 1, and LoRAs, ``FILE`` or ``FILE:scale``, or the directory of one."""
    return tuple(_contributor(value) for value in values or ())


def _contributor(value: str) -> tuple[Path, float]:
    from bdaudit.models.adapter_file import adapter_file, is_adapter_directory

    path, scale = _scaled(value)
    if is_adapter_directory(path):
        path = adapter_file(path)
    elif os.path.isdir(value):
        return path, 1.0
    if not os.path.isfile(path) or path.suffix != ".safetensors" or not math.isfinite(scale):
        raise UsageError(f"--merge-with {path}: expected a model directory, or a LoRA as FILE.safetensors or FILE.safetensors:scale")
    return path, scale


def shares(value: str) -> tuple[float, ...]:
    """``0.85,0.6,0.3``, in any order; the noisiest first."""
    try:
        return tuple(sorted({float(part) for part in value.split(",")}, reverse=True))
    except ValueError as error:
        raise UsageError(f"--timesteps is {value!r}; expected shares like 0.85,0.6,0.3") from error


def target(value: str | None) -> tuple[Path | None, tuple[int, int] | None]:
    """``FILE`` or ``FILE@x,y``: the picture, and the pixel where its top left corner lies."""
    if value is None:
        return None, None
    at = re.fullmatch(r"(.+)@(\d+),(\d+)", value)
    path = Path(at[1] if at else value)
    if not path.is_file():
        raise UsageError(f"--target-image {path}: no such file; expected FILE or FILE@x,y")
    return path, (int(at[2]), int(at[3])) if at else None


def evidence(value: str | None) -> dict[str, Evidence | Path]:
    """``required``, ``none``, or a report's path; nothing where the flag was not given."""
    if value is None:
        return {}
    if value in get_args(Evidence):
        return {"evidence": cast(Evidence, value)}
    if not Path(value).is_file():
        raise UsageError(f"--evidence {value}: no such file; expected required, none, or the JSON report of a scan, an unlearn or a verify")
    return {"evidence": Path(value)}


def swaps(values: list[str] | None) -> tuple[tuple[str, str], ...]:
    """``OLD=NEW`` pairs."""
    pairs = [tuple(value.partition("=")[::2]) for value in values or ()]
    for (old, new), value in zip(pairs, values or (), strict=True):
        if not old or not new:
            raise UsageError(f"--swap is {value!r}; expected OLD=NEW, such as --swap dog=cat")
    return tuple((old, new) for old, new in pairs)


def beside(model: Path) -> Path:
    """Where ``unlearn`` writes by default: ``MODEL-unlearned``."""
    whole = _whole(model)
    return whole.with_name(f"{whole.name}-unlearned")


def _whole(path: Path) -> Path:
    """With a name of its own at the end, not ``.`` or ``..``."""
    return path if path.name and path.name != ".." else path.resolve()


def state_beside(state: Path | None, reports: list[Path] | None) -> Path | None:
    """The state directory: as named, or beside the first report with ``.state`` for a suffix; none where there is no report."""
    return state or (reports[0].with_suffix(".state") if reports else None)


def suffixed(written: Path | None) -> Path | None:
    """Where ``unlearn`` keeps its state by default: beside what it writes, with ``.state`` at the end of the name."""
    return _whole(written).with_name(f"{_whole(written).name}.state") if written else None


def pictures_beside(folder: Path | None, reports: list[Path] | None) -> Path | None:
    """Where evidence pictures go: as named, or beside the first page, which shows them; nowhere where there is no page."""
    pages = [path for path in reports or () if path.suffix.lower() == ".html"]
    return folder or (pages[0].with_suffix(".pictures") if pages else None)


def check_finite(config: RunConfig) -> None:
    """Raises ``UsageError`` where a figure of ``config`` is NaN or infinite: a bound of NaN would gate nothing."""
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{field.name.replace('_', '-')} is {value}; expected a finite number")


def check_outside(model: Path, *named: tuple[str, Path | None]) -> None:
    """Raises ``UsageError`` where a path that would be written lies in the model directory, which is never written."""
    for flag, path in named:
        if path is not None and path.resolve().is_relative_to(model.resolve()):
            raise UsageError(f"{flag} {path} lies in the model directory, which is never written; name a place outside it")
