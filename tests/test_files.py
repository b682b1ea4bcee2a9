import os

import pytest

from robust_flatness.files import atomic_path, write_text
from robust_flatness.seeding import derive_seed

OLD = "old " * 1000
NEW = "new " * 200_000


def full(descriptor):
    raise OSError(28, "No space left on device")


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text(path, OLD)
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text(NEW[:1000])
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, NEW)
    assert path.read_text() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_streams_of_different_names_differ():
    names = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("a", 0), ("a", 1), ("a", 10), ("a", 1, 0)]
    seeds = [derive_seed(seed, *name) for seed in range(50) for name in names]
    assert len(set(seeds)) == len(seeds)
