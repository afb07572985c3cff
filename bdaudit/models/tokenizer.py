"""A model's tokenizer without its weights: what it reads is inspected first, and loading it runs nothing of the model's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bdaudit.errors import BdauditError, first_line
from bdaudit.models.staging import staged
from bdaudit.models.tokens import Tokenizer
from bdaudit.untrusted import rules
from bdaudit.untrusted.formats.directory import open_directory
from bdaudit.untrusted.inspect import led_away
from bdaudit.untrusted.layouts.layout import Layout
from bdaudit.untrusted.tree import Reader, walk


def open_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a model directory, its weights unread and unhashed.

    Raises:
        RefusedError: code, a link out of the directory, or a setting that a loader would follow elsewhere.
        InconclusiveError: of no family that can be audited.
        BdauditError: damaged, or not there.
    """
    tree = walk(directory.resolve())
    found = rules.Findings(refused=led_away(tree))
    reader = Reader(directory.resolve(), tree.files)
    opened = open_directory(reader, found, with_weights=False)
    found.settle()
    assert opened.layout is not None, "what no layout covers has been raised"
    return read_tokenizer(directory, opened.layout, opened.components, reader.checked, opened.settings)


def read_tokenizer(
    directory: Path,
    layout: Layout,
    components: Mapping[str, tuple[str, str]],
    loaded: Iterable[str],
    settings: Mapping[str, Mapping[str, Any]],
) -> Tokenizer:
    """The first tokenizer of an inspected directory, its texts cut at the length that its text encoder has.

    Raises:
        BdauditError: the library cannot make one of it.
    """
    import transformers

    name, encoder = next(iter(layout.vocabularies.items()))
    longest = settings[f"{encoder}/{layout.parts[encoder].config}"].get("max_position_embeddings", 77)
    try:
        with staged(directory, name, loaded, settings) as folder:
            tokenizer: Any = getattr(transformers, components[name][1]).from_pretrained(folder, local_files_only=True)
        tokenizer.model_max_length = min(int(tokenizer.model_max_length), longest)
    except Exception as error:  # tokenizers raise bare Exception on a damaged file; whatever it is, it is a load error
        raise BdauditError(f"{name}: {components[name][1]} could not be loaded: {first_line(error)}") from error
    return tokenizer
