"""A model's tokenizer without its weights: what it reads is inspected first, and loading it runs nothing of the model's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bdaudit.errors import BdauditError, first_line
from bdaudit.models.staging import staged
from bdaudit.models.tokens import Tokenizer, framed
from bdaudit.untrusted import rules
from bdaudit.untrusted.formats.directory import led_away, open_directory
from bdaudit.untrusted.inspect_file import open_file_model
from bdaudit.untrusted.layouts.layout import Layout
from bdaudit.untrusted.tree import Reader, walk


def open_tokenizer(
    model: Path, config: Path | None = None, parts: Mapping[str, Path] | None = None, trusted: Collection[str] = ()
) -> Tokenizer:
    """The tokenizer of a model directory or a single file, its weights unread and unhashed; the others as for ``inspect``.

    Raises:
        RefusedError: code, a link out of the directory, or a setting that a loader would follow elsewhere.
        InconclusiveError: of no family that can be audited.
        BdauditError: damaged, or not there.
    """
    found = rules.Findings()
    reader = _settings_of(model, found) if model.is_dir() else open_file_model(model, config, parts or {}, found).settings
    opened = open_directory(reader, found, with_weights=False, trusted=trusted)
    found.settle()
    assert opened.layout is not None, "what no layout covers has been raised"
    loaded = {path: reader.source(path) for path in reader.checked}
    return read_tokenizer(opened.layout, opened.components, loaded, opened.settings)


def _settings_of(directory: Path, found: rules.Findings) -> Reader:
    tree = walk(directory.resolve())
    found.refused += led_away(tree)
    return Reader(directory.resolve(), tree.files)


def read_tokenizer(
    layout: Layout,
    components: Mapping[str, tuple[str, str]],
    loaded: Mapping[str, Path | bytes],
    settings: Mapping[str, Mapping[str, Any]],
) -> Tokenizer:
    """The first tokenizer of an inspected model (``loaded`` as ``staged`` takes it), its texts cut at the length that its text encoder has.

    Raises:
        BdauditError: the library cannot make one of it.
    """
    import transformers

    name, encoder = next(iter(layout.vocabularies.items()))
    longest, reading = settings[f"{encoder}/{layout.parts[encoder].config}"].get("max_position_embeddings", 77), layout.parts[name].reading
    try:
        with staged(name, loaded, settings) as folder:
            tokenizer: Any = getattr(transformers, components[name][1]).from_pretrained(folder, local_files_only=True)
        if reading is not None:
            return framed(tokenizer, reading)
        tokenizer.model_max_length = min(int(tokenizer.model_max_length), longest)
    except BdauditError:
        raise
    except Exception as error:  # tokenizers raise bare Exception on a damaged file; whatever it is, it is a load error
        raise BdauditError(f"{name}: {components[name][1]} could not be loaded: {first_line(error)}") from error
    return tokenizer
