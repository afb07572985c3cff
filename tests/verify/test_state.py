"""What is kept between runs comes back to the bit, and nothing else comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bdaudit.errors import BdauditError, UsageError
from bdaudit.verify.gallery import Gallery, Shot
from bdaudit.verify.state import MARKER, Shelf, fingerprint, open_state
from tests.verify import toy

SHOTS = [Shot(f"a {name} picture", i) for i, name in enumerate(toy.COLOURS)]


def kept(root: Path) -> list[Path]:
    return sorted(root.rglob("*.safetensors"))


def fill(root: Path, *made_by: object) -> Gallery:
    """A gallery of all shots, drawn or recalled."""
    gallery = Gallery(None, root, made_by)
    gallery.add(SHOTS, lambda texts, seeds: toy.draw("clean", texts, seeds), 3, lambda done, total: None)
    return gallery


def test_pictures_come_back_to_the_bit_and_are_not_drawn_again(tmp_path: Path) -> None:
    first, second = fill(tmp_path, "model", 20), fill(tmp_path, "model", 20)
    assert (first.drawn, first.reused) == (len(SHOTS), 0)
    assert (second.drawn, second.reused) == (0, len(SHOTS))
    assert torch.equal(first.pictures(SHOTS), second.pictures(SHOTS))


@pytest.mark.parametrize("other", [("another model", 20), ("model", 21), ("mode", "l20"), ("model\x1f20",)])
def test_another_model_or_setting_finds_nothing(tmp_path: Path, other: tuple[object, ...]) -> None:
    fill(tmp_path, "model", 20)
    assert fill(tmp_path, *other).reused == 0


def test_no_two_lists_share_a_name() -> None:
    assert fingerprint("a\x1f", "b") != fingerprint("a", "\x1fb")
    assert fingerprint("a", "", "") != fingerprint("a\x1f")
    assert fingerprint("a", 1) == fingerprint("a", 1)


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    gallery = Gallery(None, tmp_path, ("model", 20))
    with pytest.raises(KeyboardInterrupt):
        gallery.add(SHOTS, lambda texts, seeds: toy.draw("clean", texts, seeds), 3, stop)
    again = fill(tmp_path, "model", 20)
    assert (again.reused, again.drawn) == (3, len(SHOTS) - 3)


def test_a_damaged_entry_is_counted_and_drawn_again(tmp_path: Path) -> None:
    first = fill(tmp_path, "model")
    files = kept(tmp_path)
    files[0].write_bytes(files[0].read_bytes()[:-7])
    altered = bytearray(files[1].read_bytes())
    altered[-1] ^= 1
    files[1].write_bytes(altered)
    files[2].write_bytes(files[3].read_bytes())  # whole, but another shot's
    files[4].write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    files[5].unlink()
    files[5].symlink_to(files[6])
    files[7].unlink()
    files[7].mkdir()
    files[7].rmdir()
    again = fill(tmp_path, "model")
    assert (again.damaged, again.drawn) == (5, 6)
    assert torch.equal(first.pictures(SHOTS), again.pictures(SHOTS))
    assert fill(tmp_path, "model").drawn == 0, "what was drawn again was kept"


def test_whole_entries_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    for name, tensor in {"size": torch.rand(3, 8, 8), "channels": torch.rand(4, 16, 16), "range": torch.full((3, 16, 16), 7.0)}.items():
        root = tmp_path / name
        fill(root, "model")
        Shelf(root, "picture", "model").put(tensor, *SHOTS[-1])
        with pytest.raises(UsageError, match="delete it"):
            fill(root, "model")


def test_an_entry_without_a_checksum_or_with_figures_that_are_none_does_not_count(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "picture")
    shelf.put(torch.full((3, 2, 2), float("nan")), "a")
    assert shelf.get("a") is None
    shelf.put(torch.rand(3, 2, 2), "a")
    save_file({"tensor": torch.rand(3, 2, 2)}, kept(tmp_path)[0], metadata={"key": fingerprint("a")})
    assert shelf.get("a") is None
    assert shelf.damaged == 2


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    fill(tmp_path, "model")
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors"}


def test_a_state_directory_is_new_empty_or_ones_own(tmp_path: Path) -> None:
    assert open_state(tmp_path / "new" / "state").is_dir()
    assert open_state(tmp_path / "new" / "state") == tmp_path / "new" / "state", "its own again"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="other things"):
        open_state(tmp_path / "other")
    with pytest.raises(UsageError, match="got a file"):
        open_state(tmp_path / "other" / "thesis.tex")
    assert not (tmp_path / "other" / MARKER).exists()


def test_a_link_in_it_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "state", "model")
    place = kept(tmp_path / "state")[0].parents[1]
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        fill(tmp_path / "state", "model")


def test_a_full_or_closed_disk_is_told(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "picture")
    assert shelf._folder is not None
    shelf._folder.write_text("a file in the folder's place")
    with pytest.raises(BdauditError, match="cannot be written"):
        shelf.put(torch.rand(3, 2, 2), "a")
