"""Putting a finished folder in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.partition.errors import DivergentWriters, DurabilityUncertain, WriteFailed
from lightning_elche.partition.fs import LocalFs, Owner
from lightning_elche.partition.publish import Publisher
from lightning_elche.partition.store import CheckpointStore
from tests.partition.states import make_host, make_snapshot, make_store, names_in


def test_rename_whose_answer_is_lost_counts(tmp_path: Path) -> None:
    """On a network a rename may be carried out and reported as failed; the save succeeds then."""

    class LosesAnswers(LocalFs):
        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            raise OSError(2, "injected")

    assert make_store(tmp_path, LosesAnswers()).save(make_snapshot(1)).is_new
    assert names_in(tmp_path) == ["step-00000001"]


def test_rename_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """If the rename is not carried out, the save fails and its folder is removed."""

    class NeverRenames(LocalFs):
        def rename(self, source: Path, target: Path) -> None:
            raise OSError(5, "injected")

    with pytest.raises(WriteFailed, match="injected"):
        make_store(tmp_path, NeverRenames()).save(make_snapshot(1))
    assert names_in(tmp_path) == []


def test_disk_that_takes_no_byte_is_an_error(tmp_path: Path) -> None:
    """A write of nothing fails the save instead of being tried for ever."""

    class Silent(LocalFs):
        def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
            return 0

    with pytest.raises(WriteFailed, match="no byte was written"):
        make_store(tmp_path, Silent()).save(make_snapshot(1))


def test_small_writes_are_repeated_until_all_is_written(tmp_path: Path) -> None:
    """A disk that takes a byte at a time gets all of them."""

    class Slow(LocalFs):
        def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
            return super().pwrite(descriptor, data[:1], offset)

    store = make_store(tmp_path, Slow(), read_back=True, durability="flush")
    assert store.save(make_snapshot(1)).is_new


class Secretive(LocalFs):
    """Lets nobody open the folder `above`, which one may make folders in."""

    def fsync_folder(self, path: Path) -> None:
        if path.name == "above":
            raise PermissionError(13, "injected")
        super().fsync_folder(path)


def test_root_that_is_there_may_lie_in_a_closed_folder(tmp_path: Path) -> None:
    """A folder above that cannot be opened matters only to a new root, whose name is at stake."""
    root = tmp_path / "above" / "root"
    with pytest.raises(WriteFailed):
        Publisher(fs=Secretive()).make_root(root)
    root.mkdir(exist_ok=True)
    Publisher(fs=Secretive()).make_root(root)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_save_makes_room_where_something_else_lies(tmp_path: Path, kind: str) -> None:
    """A file or link under the name of a checkpoint is set aside, and not written through."""
    place = tmp_path / "root" / "step-00000001"
    (tmp_path / "root").mkdir()
    (tmp_path / "precious" / "inner").mkdir(parents=True)
    if kind == "file":
        place.write_bytes(b"x")
    else:
        place.symlink_to(tmp_path / "precious")
    store = make_store(tmp_path / "root", max_quarantined=1)
    assert store.save(make_snapshot(1)).is_new
    store.quarantine(make_snapshot(2))  # what was set aside goes for it
    assert not place.is_symlink()
    assert len(names_in(tmp_path / "root" / "quarantine")) == 1
    assert names_in(tmp_path / "precious") == ["inner"]


class Rival(LocalFs):
    """Another writer of the same step, always a moment faster.

    Args:
        value: Of its state; `None` if it leaves half a checkpoint.
        is_blind: Whether it takes other processes for dead, and so removes what they write.
    """

    def __init__(self, value: float | None, *, is_blind: bool = False) -> None:
        self.value = value
        self.host = make_host(owner=Owner("here", "boot", 200), is_alive=lambda _: not is_blind)

    def rename(self, source: Path, target: Path) -> None:
        if target.name == "step-00000001" and not target.exists():
            if self.value is None:
                (target / "half").mkdir(parents=True)
            else:
                store = CheckpointStore(target.parent, host=self.host)
                store.save(make_snapshot(1, value=self.value, segment="s9"))
        super().rename(source, target)


@pytest.mark.parametrize("is_blind", [False, True])
def test_writer_that_comes_second_with_the_same_state_succeeds(
    tmp_path: Path, is_blind: bool
) -> None:
    """If an equal checkpoint appears while this one is written, that one is kept."""
    saved = make_store(tmp_path, Rival(1.0, is_blind=is_blind)).save(make_snapshot(1))
    assert (saved.is_new, saved.manifest.segment) == (False, "s9")
    assert names_in(tmp_path) == ["step-00000001"]


def test_writer_that_comes_second_with_another_state_keeps_both(tmp_path: Path) -> None:
    """If another state appears while this one is written, this one goes to quarantine."""
    with pytest.raises(DivergentWriters):
        make_store(tmp_path, Rival(8.0)).save(make_snapshot(1))
    assert names_in(tmp_path) == ["quarantine", "step-00000001"]
    assert len(names_in(tmp_path / "quarantine")) == 1


def test_writer_whose_folder_was_taken_away_knows(tmp_path: Path) -> None:
    """The checkpoint of another writer is never taken for one's own."""
    with pytest.raises(WriteFailed, match="another writer is in its place"):
        make_store(tmp_path, Rival(8.0, is_blind=True)).save(make_snapshot(1))


def test_writer_gives_up_where_damaged_folders_keep_appearing(tmp_path: Path) -> None:
    """A place that is taken again as soon as it is cleared fails the save, with nothing left."""
    with pytest.raises(WriteFailed, match="others write it at the same time"):
        make_store(tmp_path, Rival(None)).save(make_snapshot(1))
    assert not any(name.startswith(".tmp") for name in names_in(tmp_path))


def test_equal_checkpoint_that_cannot_be_synced_is_uncertain(tmp_path: Path) -> None:
    """What another process has published is confirmed by a sync of the root of one's own."""

    class Unsyncable(LocalFs):
        def fsync_folder(self, path: Path) -> None:
            if path.name == "root":
                raise OSError(5, "injected")
            super().fsync_folder(path)

    make_store(tmp_path / "root").save(make_snapshot(1))
    with pytest.raises(DurabilityUncertain):
        make_store(tmp_path / "root", Unsyncable()).save(make_snapshot(1))


def test_checkpoint_of_a_rival_is_confirmed_too(tmp_path: Path) -> None:
    """A writer that comes second syncs the root itself: the first may not have got so far."""

    class UnsyncableAfterRival(Rival):
        has_lost = False

        def rename(self, source: Path, target: Path) -> None:
            self.has_lost = True
            super().rename(source, target)

        def fsync_folder(self, path: Path) -> None:
            if self.has_lost:
                raise OSError(5, "injected")
            super().fsync_folder(path)

    with pytest.raises(DurabilityUncertain):
        make_store(tmp_path, UnsyncableAfterRival(1.0)).save(make_snapshot(1))
