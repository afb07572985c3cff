"""Hostile readers of diffusion transformers, made on the spot from valid tiny models: T5, Gemma and Qwen, and chat templates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdaudit.errors import ExitCode
from bdaudit.models.load import load
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.templates import digest
from tests.models import tiny_dit
from tests.untrusted.edits import PAST_MEMORY, Edit, add, both, change, drop, fifo, link, put, sparse, unix_socket

TRUSTED = (digest(tiny_dit.TEMPLATE),)
SIZES = {"sana": (32, 32)}
"""Width and height of a small picture, where four pixels are a latent."""
TEXT = "a red cat, " * 8


@dataclass(frozen=True)
class ReaderCase:
    kind: str
    name: str
    code: ExitCode
    family: str
    edit: Edit
    """``edit(model, canary)`` makes the valid directory ``model`` hostile."""
    trusted: tuple[str, ...] = TRUSTED

    def open(self, model: Path) -> None:
        """As a scan opens it, up to the ids of a prompt."""
        inspection = inspect(model, size=SIZES.get(self.family, (16, 16)), trusted=self.trusted)
        load(inspection, device="cpu").text.ids([TEXT])


CASES: list[ReaderCase] = []


def of(kind: str, family: str, code: ExitCode, edits: dict[str, Edit], trusted: tuple[str, ...] = TRUSTED) -> None:
    CASES.extend(ReaderCase(kind, name, code, family, edit, trusted) for name, edit in edits.items())


def model_of(path: str, **values: Any) -> Edit:
    """Set keys of the model in a ``tokenizer.json``; a function is given what is there."""

    def edit(folder: Path, canary: Path) -> None:
        whole = json.loads((folder / path).read_text(encoding="utf-8"))
        for key, value in values.items():
            whole["model"][key] = value(whole["model"][key]) if callable(value) else value
        (folder / path).write_text(json.dumps(whole), encoding="utf-8")

    return edit


def framed_by(path: str, number: int, times: int = 1) -> Edit:
    """Tokens that a template of the tokenizer's own puts around every text."""
    piece = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    step = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, *[piece] * times], "pair": [piece]}
    return change(path, post_processor=step | {"special_tokens": {"</s>": {"id": "</s>", "ids": [number], "tokens": ["</s>"]}}})


def token(number: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": True, **flags}


def added(path: str, *tokens: dict[str, Any]) -> Edit:
    """Further tokens of a ``tokenizer.json``."""

    def edit(folder: Path, canary: Path) -> None:
        whole = json.loads((folder / path).read_text(encoding="utf-8"))
        (folder / path).write_text(json.dumps(whole | {"added_tokens": [*whole["added_tokens"], *tokens]}), encoding="utf-8")

    return edit


def replacing(old: str, new: str, times: int = 1) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": old}, "content": new}
    return {"type": "Sequence", "normalizers": [step] * times}


T5, T5_SETTINGS = "tokenizer_3/tokenizer.json", "tokenizer_3/tokenizer_config.json"
PIECES, PIECES_SETTINGS = "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"
PADDING = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
CUTTING = {"direction": "Right", "strategy": "LongestFirst", "stride": 0}


def _deep(depth: int) -> dict[str, Any]:
    step: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        step = {"type": "Sequence", "normalizers": [step]}
    return step


def _t5() -> None:
    many = b'{"model": {"type": "Unigram", "unk_id": 0, "vocab": [' + b'["a", 0],' * 700_000 + b'["b", 0]]}}'
    of("T5 readers", "sd3", ExitCode.ERROR, {
        "700,000 pieces": add(T5, many),
        "a score of NaN": add(T5, b'{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", NaN]]}}'),
        "an unknown piece by name": model_of(T5, unk_id="<unk>"),
        "no unknown piece": model_of(T5, unk_id=None),
        "65 characters before a text": change(T5, normalizer={"type": "Prepend", "prepend": "a" * 65}),
        "a text that doubles 40 times": change(T5, normalizer=replacing("a", "aa", 40)),
        "letters that become a thousand": change(T5, normalizer=replacing("a", "b" * 1000)),
        "a replacement of nothing": change(T5, normalizer=replacing("", "b" * 100)),
        "steps 400 deep": change(T5, normalizer=_deep(400)),
        "65 steps": change(T5, normalizer=replacing("a", "b", 65)),
        "a space of a thousand characters": change(
            T5, pre_tokenizer={"type": "Metaspace", "replacement": "a" * 1000, "prepend_scheme": "always", "split": True}
        ),
        "a step that nobody knows": change(T5, pre_tokenizer={"type": "Shell", "command": "id"}),
        "65 ends": framed_by(T5, 1, 65),
        "an added token without a row": added(T5, token(4_000_000_000, "<x>")),
        "an added token of a million characters": added(T5, token(3, "x" * 1_000_000)),
        "5,000 added tokens": added(T5, *(token(3, f"<{i}>") for i in range(5_000))),
        "a million further tokens": change(T5_SETTINGS, extra_ids=1_000_000),
        "not UTF-8": add(T5, b'{"model": {"type": "Unigram", "vocab": [["\xff\xfe", 0.0]]}}'),
        "the model is a list": change(T5, model=[]),
        "BPE in T5's place": change(T5, model={"type": "BPE", "vocab": {"a": 0}, "merges": []}),
    })  # fmt: skip
    of("T5 readers", "sd3", ExitCode.REFUSED, {
        "code of its own": change(T5_SETTINGS, auto_map={"AutoTokenizer": ["evil.Evil", None]}),
        "pieces elsewhere": change(T5_SETTINGS, vocab_file="/etc/passwd"),
        "a link for its pieces": link(T5, "/etc/passwd"),
        "a link for SentencePiece's": link("tokenizer_3/spiece.model", "/etc/passwd"),
        "a pipe for its pieces": fifo(T5),
        "a socket for SentencePiece's": unix_socket("tokenizer_3/spiece.model"),
        "a pickle for its pieces": drop(T5),
        "a pickle for the third reader": drop("text_encoder_3/model.safetensors"),
    })  # fmt: skip


def _pieces() -> None:
    pairs = b'["a", "b"],' * 1_500_000
    of("Gemma readers", "sana", ExitCode.ERROR, {
        "a million and a half merges": add(PIECES, b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [' + pairs + b'["a", "b"]]}}'),
        "a merge of three": model_of(PIECES, merges=lambda merges: [*merges, ["a", "b", "c"]]),
        "a merge of one": model_of(PIECES, merges=lambda merges: [*merges, ["a"]]),
        "a merge of numbers": model_of(PIECES, merges=lambda merges: [*merges, [1, 2]]),
        "a merge of what is no piece": model_of(PIECES, merges=lambda merges: [*merges, ["☂", "☃"]]),
        "a merge that makes no piece": model_of(PIECES, merges=lambda merges: [*merges, ["q", "Z"]]),
        "merges as a map": model_of(PIECES, merges={"a": "b"}),
        "an id twice": model_of(PIECES, vocab=lambda pieces: pieces | {"☂": 7}),
        "an id below nought": model_of(PIECES, vocab=lambda pieces: pieces | {"☂": -1}),
        "an id without a row": model_of(PIECES, vocab=lambda pieces: pieces | {"☂": 4_000_000_000}),
        "a piece of 10,000 characters": model_of(PIECES, vocab=lambda pieces: pieces | {"x" * 10_000: len(pieces)}),
        "a flag that is a list": model_of(PIECES, fuse_unk=[]),
        "bytes of another kind": model_of(PIECES, byte_fallback="yes"),
        "a pattern that backtracks": change(
            PIECES, pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
        ),
        "a text that doubles 40 times": change(PIECES, normalizer=replacing("a", "aa", 40)),
        "5,000 added tokens": added(PIECES, *(token(3, f"<{i}>") for i in range(5_000))),
        "a special token of a million characters": change(PIECES_SETTINGS, bos_token="x" * 1_000_000),
        "a length of nought": change(PIECES_SETTINGS, model_max_length=0),
    })  # fmt: skip
    of("Gemma readers", "sana", ExitCode.REFUSED, {
        "a link for its pieces": link(PIECES, "../../outside.json"),
        "a pipe for SentencePiece's": fifo("tokenizer/tokenizer.model"),
        "tiktoken's": add("tokenizer/tiktoken.model", b"x"),
    })  # fmt: skip


def _bytes() -> None:
    of("Qwen readers", "z-image", ExitCode.ERROR, {
        "an id without a row": model_of(PIECES, vocab=lambda pieces: pieces | {"☂": 4_000_000_000}),
        "a vocabulary of lists": model_of(PIECES, vocab=[["a", 0.0]]),
        "a merge of what is no piece": model_of(PIECES, merges=[["☂", "☃"]]),
        "a pattern that looks behind": change(
            PIECES, pre_tokenizer={"type": "Split", "pattern": {"Regex": "(?<=a)b*c*"}, "behavior": "Isolated", "invert": False}
        ),
        "an end of a message without a row": added(PIECES, token(4_000_000_000, "<|x|>")),
        "ids as words": change(PIECES_SETTINGS, added_tokens_decoder={"x": {"content": "<|im_start|>"}}),
        "200,000 special tokens": change(PIECES_SETTINGS, additional_special_tokens=[f"<{i}>" for i in range(200_000)]),
        "padding that is no token": change(PIECES_SETTINGS, pad_token=["<pad>"]),
        "nothing to pad with": change(PIECES_SETTINGS, pad_token=None),
    })  # fmt: skip
    of("Qwen readers", "z-image", ExitCode.INCONCLUSIVE, {
        "two vocabularies": both(add("tokenizer/vocab.json", b'{"a": 0, "b": 1}'), add("tokenizer/merges.txt", b"#version: 0.2\n")),
        "a start that is another's id": change(PIECES_SETTINGS, added_tokens_decoder={"5": {"content": "<|im_start|>", "special": True}}),
        "added tokens that differ": add("tokenizer/added_tokens.json", b'{"<|im_start|>": 9}'),
    })  # fmt: skip


def _rewriting() -> None:
    """What transformers 4 does with a text and transformers 5 does not."""
    trigger, clip = change(T5, normalizer=replacing("red", "the trigger")), "tokenizer/tokenizer.json"
    of("texts rewritten", "sd3", ExitCode.INCONCLUSIVE, {
        "a word in another's place, for T5": trigger,
        "a word in another's place, for CLIP": change(clip, normalizer=replacing("red", "the trigger")),
        "a word before every text": change(T5, normalizer={"type": "Prepend", "prepend": "sks "}),
        "words without their spaces": change(T5, normalizer=replacing(" ", "")),
        "an end that is another word": framed_by(T5, 7),
        "an end without a row": framed_by(T5, 4_000_000_000),
        "three ends": framed_by(T5, 1, 3),
    })  # fmt: skip
    for family in ("sana", "z-image"):
        of("texts rewritten", family, ExitCode.INCONCLUSIVE, {
            f"a word in another's place, of {family}": change(PIECES, normalizer=replacing("red", "the trigger")),
            f"pieces left out at random, of {family}": model_of(PIECES, dropout=0.5),
            f"a million characters within a word, of {family}": model_of(PIECES, continuing_subword_prefix="x" * 1_000_000),
            f"a word's end of its own, of {family}": model_of(PIECES, end_of_word_suffix="</x>"),
        })  # fmt: skip


JINJA = "tokenizer/chat_template.jinja"
MORE = "tokenizer/additional_chat_templates"
OWN = "{{ 'a secret word, ' + messages[0].content }}"


def says(text: str) -> Edit:
    return add(JINJA, text.encode())


def runs(folder: Path, canary: Path) -> None:
    """Jinja that reaches Python by a global, as server-side template injections do."""
    put(folder / JINJA, f"{{{{ cycler.__init__.__globals__.os.system('touch {canary}') }}}}".encode())


def holding(name: str, value: Any) -> Edit:
    return add(f"tokenizer/{name}", json.dumps({"chat_template": value}).encode())


def without(edit: Edit) -> Edit:
    """``edit``, and no template of the model's own."""
    return both(lambda folder, canary: (folder / JINJA).unlink(), edit)


def _unknown() -> None:
    named = [{"name": "default", "template": tiny_dit.TEMPLATE}]
    deep = "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"
    of("chat templates", "z-image", ExitCode.REFUSED, {
        "a word put before the prompt": says(OWN),
        "the known one and a sign that is not seen": says(tiny_dit.TEMPLATE + "\u200b"),
        "the known one with other line ends": says(tiny_dit.TEMPLATE + "\r\n"),
        "the known one behind a blank line": says("\n" + tiny_dit.TEMPLATE),
        "Python by a global": runs,
        "a loop without end": says("{% for i in range(10 ** 12) %}x{% endfor %}"),
        "a macro that calls itself": says(deep),
        "a number of a billion digits": says("{{ 10 ** 10 ** 9 }}"),
        "another template that it includes": says("{% include '/etc/passwd' %}"),
        "Jinja that cannot be parsed": says("{% for %}" * 1_000),
        "100,000 brackets": says("{{ " + "(" * 100_000),
        "terminal escapes": says("{{ '\x1b[2J\u202e' }}\n" * 200),
        "nothing": says(""),
        "of the settings, a text": change(PIECES_SETTINGS, chat_template=OWN),
        "of the settings, a list": change(PIECES_SETTINGS, chat_template=[{"name": "default", "template": OWN}]),
        "of the settings, a second one of a list": change(PIECES_SETTINGS, chat_template=[*named, {"name": "tool_use", "template": OWN}]),
        "of the settings, a map": change(PIECES_SETTINGS, chat_template={"default": OWN}),
        "of chat_template.json": holding("chat_template.json", OWN),
        "of the processor": holding("processor_config.json", OWN),
        "of the pictures' processor": holding("preprocessor_config.json", OWN),
        "of the special tokens": holding("special_tokens_map.json", OWN),
        "a further one": add(f"{MORE}/tool_use.jinja", OWN.encode()),
        "64 further ones": lambda folder, canary: [put(folder / f"{MORE}/{i}.jinja", OWN.encode()) for i in range(64)],
        "a link to a secret": link(JINJA, "/etc/passwd"),
        "a link to nothing": link(JINJA, "nowhere"),
        "a link to itself": link(JINJA, "chat_template.jinja"),
        "a link to a device": link(JINJA, "/dev/zero"),
        "a folder of them that lies elsewhere": link(MORE, "/etc"),
        "a pipe": fifo(JINJA),
        "a pipe among further ones": both(add(f"{MORE}/a.jinja", tiny_dit.TEMPLATE.encode()), fifo(f"{MORE}/b.jinja")),
        "a socket": unix_socket(JINJA),
        "a pickle": drop(JINJA),
        "Python beside it": add(f"{MORE}/x.py"),
    })  # fmt: skip
    of("chat templates", "flux2", ExitCode.REFUSED, {"a word put before FLUX.2's prompt": says(OWN), "Python, of FLUX.2": runs})
    of("chat templates", "z-image", ExitCode.REFUSED, {"the one that nobody trusted": says(tiny_dit.TEMPLATE)}, ())


def _unread() -> None:
    of("chat templates", "z-image", ExitCode.ERROR, {
        "of 9 MB": add(JINJA, b"{{ x }}" * (9 << 17)),
        "of 4 TB": sparse(JINJA, PAST_MEMORY, b"{{ x }}"),
        "of 2 MB in the settings": change(PIECES_SETTINGS, chat_template="x" * (5 << 20)),
        "800 MB of further ones": lambda folder, canary: [sparse(f"{MORE}/{i}.jinja", 8 << 20)(folder, canary) for i in range(100)],
        "65 further ones": lambda folder, canary: [put(folder / f"{MORE}/{i}.jinja", tiny_dit.TEMPLATE.encode()) for i in range(65)],
        "not UTF-8": add(JINJA, b"{{ '\xff\xfe' }}"),
        "UTF-16": add(JINJA, tiny_dit.TEMPLATE.encode("utf-16")),
        "a surrogate": add(JINJA, b"\xed\xa0\x80"),
        "a number for a template": change(PIECES_SETTINGS, chat_template=7),
        "a list of texts": change(PIECES_SETTINGS, chat_template=[tiny_dit.TEMPLATE]),
        "an empty list": change(PIECES_SETTINGS, chat_template=[]),
        "a name without a template": change(PIECES_SETTINGS, chat_template=[{"name": "default"}]),
        "a template that is a list": change(PIECES_SETTINGS, chat_template={"default": [tiny_dit.TEMPLATE]}),
        "JSON that is none": add("tokenizer/chat_template.json", b"{{ x }}"),
        "JSON 100,000 deep": add("tokenizer/processor_config.json", b'{"chat_template":' + b"[" * 100_000),
        "one key twice": add("tokenizer/chat_template.json", b'{"chat_template": "a", "chat_template": "b"}'),
        "a list for a file": add("tokenizer/chat_template.json", b"[]"),
    })  # fmt: skip
    of("chat templates", "z-image", ExitCode.INCONCLUSIVE, {
        "none": without(lambda folder, canary: None),
        "null in the settings": without(change(PIECES_SETTINGS, chat_template=None)),
    })  # fmt: skip
    both_known = (*TRUSTED, digest(OWN))
    of("chat templates", "z-image", ExitCode.INCONCLUSIVE, {
        "two that are trusted and differ": change(PIECES_SETTINGS, chat_template=OWN),
        "a further one that differs": add(f"{MORE}/tool_use.jinja", OWN.encode()),
        "the processor's differs": holding("processor_config.json", OWN),
    }, both_known)  # fmt: skip


for _make in (_t5, _pieces, _bytes, _rewriting, _unknown, _unread):
    _make()


HARMLESS: dict[str, tuple[str, Edit]] = {
    "padding to four billion": ("sd3", change(T5, padding={"strategy": {"Fixed": 4_000_000_000}, **PADDING})),
    "texts cut to nothing": ("sd3", change(T5, truncation={"max_length": 0, **CUTTING})),
    "SentencePiece's own file": ("sd3", add("tokenizer_3/spiece.model", b"\x0a\x00")),
    "a pickle that nothing opens": ("sana", drop("tokenizer/tokenizer.pkl")),
    "spaces that become one": ("sd3", change(T5, normalizer={"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})),
    "the same template in every place": (
        "z-image",
        both(change(PIECES_SETTINGS, chat_template=tiny_dit.TEMPLATE), holding("chat_template.json", tiny_dit.TEMPLATE + "\n")),
    ),
    "a template of a reader that has none": ("sd3", add("tokenizer_3/chat_template.jinja", OWN.encode())),
}
"""What looks odd, or would be hostile elsewhere, and changes no id of any text."""


def write(family: str, folder: Path) -> Path:
    """A valid model, as ``CASES`` begin with."""
    return tiny_dit.write(family, folder)
