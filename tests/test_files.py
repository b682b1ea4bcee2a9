"""Files are whole or absent, whatever happens while they are written."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from robust_flatness.files import atomic_path, canonical_json, write_json, write_text

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


def test_the_final_name_is_not_touched_before_the_end(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text(NEW)
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems would be a copy
        assert temporary.name.startswith(".")
    assert path.read_text() == NEW


def test_kills_while_writing_leave_the_old_or_the_new_file(tmp_path):
    """kill -9 at six random moments of a process that does nothing but write."""
    path = tmp_path / "file.txt"
    write_text(path, OLD)
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from robust_flatness.files import write_text
        path, old, new = Path(sys.argv[1]), "old " * 1000, "new " * 200_000
        print("ready", flush=True)
        while True:
            write_text(path, new)
            write_text(path, old)
        """
    )
    rng = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert path.read_text() in (OLD, NEW)
        # what a killed writer leaves is hidden and ends in .tmp: no pattern of results takes it for one
        others = [other for other in tmp_path.iterdir() if other != path]
        assert all(other.name.startswith(".") and other.suffix == ".tmp" for other in others)
        assert list(tmp_path.glob("*.txt")) == [path]


def test_equal_values_give_equal_json(tmp_path):
    first = {"b": [1, 2.5, None], "a": {"y": True, "x": "é"}}
    second = {"a": {"x": "é", "y": True}, "b": [1, 2.5, None]}
    assert canonical_json(first) == canonical_json(second)
    assert " " not in canonical_json(first)
    write_json(tmp_path / "1.json", first)
    write_json(tmp_path / "2.json", second)
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert json.loads((tmp_path / "1.json").read_text()) == first


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_are_the_umasks(tmp_path, umask, mode, monkeypatch):
    """Also where the file system has no chmod."""

    def chmod(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", chmod)
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file.txt", NEW)
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == mode
