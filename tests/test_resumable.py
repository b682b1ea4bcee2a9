"""Interrupted work goes on where it was, and two never write at once."""

import errno
import fcntl
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch

from robust_flatness.errors import FileError
from robust_flatness.resumable import StateFile, Unfinished, lock
from robust_flatness.resumable.lock import locked

IDENTITY = {"spec": {"xi": 0.5}, "seed": 0}


def job(folder, identity=IDENTITY, report=lambda text: None):
    return Unfinished(folder / ".resume", identity, report)


def interrupted(folder, identity=IDENTITY, parts=(("a", 1.5),)):
    """A job that fails after its parts `parts`."""
    unfinished = job(folder, identity)
    with pytest.raises(KeyboardInterrupt), unfinished.locked([]):  # noqa: PT012
        for name, value in parts:
            unfinished.get(name, lambda value=value: value)
        raise KeyboardInterrupt


def never():
    raise AssertionError("measured again")


def test_finished_parts_are_not_measured_again(tmp_path):
    value = {"x": 0.1 + 0.2, "many": [1e-300, float("inf")], "none": None}
    interrupted(tmp_path, parts=[("a", value)])
    unfinished = job(tmp_path)
    with unfinished.locked([]) as needed:
        assert needed
        assert unfinished.get("a", never) == value
        assert unfinished.get("b", lambda: 2) == 2


def test_a_kept_part_is_in_the_order_of_a_measured_one(tmp_path):
    """Columns of a table follow the keys."""
    unfinished = job(tmp_path)
    with unfinished.locked([]):
        measured = unfinished.get("a", lambda: {"b": 1, "a": {"d": 2, "c": 3}})
        kept = unfinished.get("a", never)
    assert str(measured) == str(kept) == "{'a': {'c': 3, 'd': 2}, 'b': 1}"


def test_a_job_that_was_finished_unseen_is_not_measured_again(tmp_path):
    """Its workflow died before it ended, and the next one has deleted its outputs."""
    unfinished = job(tmp_path)
    with unfinished.locked([]):
        unfinished.get("a", lambda: 1)
        (unfinished.parts / "autoattack").write_text("state of the measure's own")
    assert [path.name for path in unfinished.parts.iterdir()] == ["a.json"]
    with job(tmp_path).locked([]) as needed:
        assert needed
        assert unfinished.get("a", never) == 1


def test_other_source_measures_again(tmp_path, monkeypatch):
    interrupted(tmp_path)
    monkeypatch.setattr("robust_flatness.resumable.measure.source_digest", lambda: "other")
    unfinished = job(tmp_path)
    with unfinished.locked([]):
        assert unfinished.get("a", lambda: 7) == 7


@pytest.mark.parametrize("other", [{"spec": {"xi": 0.25}, "seed": 0}, {"spec": {"xi": 0.5}, "seed": 1}])
def test_parts_of_another_job_are_not_taken(tmp_path, other):
    interrupted(tmp_path)
    unfinished = job(tmp_path, other)
    with unfinished.locked([]):
        assert unfinished.get("a", lambda: 7) == 7
    assert {path.name for path in (tmp_path / ".resume").iterdir()} == {
        "lock", "finished", unfinished.parts.name,
    }  # fmt: skip


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b.replace(b"1.5", b"2.5"), lambda b: b""])
def test_damaged_parts_are_measured_again(tmp_path, damage):
    interrupted(tmp_path)
    unfinished = job(tmp_path)
    path = unfinished.parts / "a.json"
    path.write_bytes(damage(path.read_bytes()))
    with unfinished.locked([]):
        assert unfinished.get("a", lambda: 7) == 7


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    output = tmp_path / "last" / "flatness.json"
    output.parent.mkdir()
    (output.parent / ".flatness.json.x1.tmp").write_text("half")
    (output.parent / ".robustness.json.x1.tmp").write_text("another job's")
    with job(tmp_path).locked([output]):
        assert [path.name for path in output.parent.iterdir()] == [".robustness.json.x1.tmp"]


OTHER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from robust_flatness.resumable import Unfinished
    folder = Path(sys.argv[1])
    with Unfinished(folder / ".resume", {"spec": {"xi": 0.5}, "seed": int(sys.argv[2])}).locked([]):
        print("holding", flush=True)
        time.sleep(1)
        (folder / "output.json").write_text("done")
        if sys.argv[3] == "killed":
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
    """
)


@pytest.mark.parametrize(
    ("seed", "end", "left"), [(0, "finishes", False), (1, "finishes", True), (0, "killed", True)]
)
def test_an_orphan_is_waited_for(tmp_path, seed, end, left):
    """What it finished counts if it was this very job; otherwise the work is done here, after it."""
    command = [sys.executable, "-c", OTHER, str(tmp_path), str(seed), end]
    orphan = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert orphan.stdout.readline() == "holding\n"
    said, start = [], time.monotonic()
    with job(tmp_path, report=said.append).locked([tmp_path / "output.json"]) as needed:
        assert needed is left
    assert time.monotonic() - start > 0.5
    assert "waiting" in said[0]
    orphan.wait()
    orphan.stdout.close()


def test_an_orphan_whose_output_is_gone_does_not_count(tmp_path):
    command = [sys.executable, "-c", OTHER, str(tmp_path), "0", "finishes"]
    orphan = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert orphan.stdout.readline() == "holding\n"
    with job(tmp_path).locked([tmp_path / "deleted.json"]) as needed:
        assert needed
    orphan.wait()
    orphan.stdout.close()


def test_a_state_comes_back_as_it_was(tmp_path):
    file = StateFile(tmp_path / "state", "mine")
    assert file.load() is None
    tensors = {"bits": torch.tensor([True, False]), "half": torch.ones(2, 3, dtype=torch.bfloat16)}
    file.save(tensors, {"done": 2, "rows": [0.1 + 0.2]})
    state = file.load()
    assert all(torch.equal(state.tensors[name], tensors[name]) for name in tensors)
    assert state.notes == {"done": 2, "rows": [0.1 + 0.2]}
    with pytest.raises(FileError, match="belongs to other settings"):
        StateFile(tmp_path / "state", "other").load()


def test_no_flipped_bit_of_a_state_counts(tmp_path):
    file = StateFile(tmp_path / "state", "mine")
    file.save({"x": torch.arange(8)}, {"done": 1})
    whole = file.path.read_bytes()
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        file.path.write_bytes(data)
        with pytest.raises(FileError, match="damaged"):
            file.load()


HOLDER = textwrap.dedent(
    """
    import errno, fcntl, os, sys, time
    from pathlib import Path
    def flock(*_):
        raise OSError(int(sys.argv[2]), "not here")
    fcntl.flock = flock
    from robust_flatness.resumable.lock import locked
    with locked(Path(sys.argv[1]), "waits", print):
        print("holding", flush=True)
        time.sleep(float(sys.argv[3]))
        os._exit(9)  # as if killed: nothing is released
    """
)


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def no_flock(request, monkeypatch):
    """A file system without flock: the error number it answers with."""

    def flock(*_):
        raise OSError(request.param, "not here")

    monkeypatch.setattr(fcntl, "flock", flock)
    return request.param


def test_without_flock_a_file_takes_its_place(tmp_path, no_flock):
    said = []
    with locked(tmp_path, "waits", said.append) as waited:
        assert not waited
        assert (tmp_path / "lock-lease").exists()
    assert not (tmp_path / "lock-lease").exists()
    assert len(said) == 1
    assert "no flock on this file system" in said[0]


def test_without_flock_a_dead_process_is_taken_over(tmp_path, no_flock):
    """It is waited for while it lives, and not for the end of its lease."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(no_flock), "1"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "note" in holder.stdout.readline()
    assert holder.stdout.readline() == "holding\n"
    threading.Thread(target=holder.wait).start()  # a process that nobody waits for is still there
    said, start = [], time.monotonic()
    with locked(tmp_path, "another process holds it", said.append) as waited:
        assert waited
        assert holder.wait(10) == 9
    assert 0.3 < time.monotonic() - start < lock.LEASE / 3
    assert "another process holds it; waiting" in said[1]
    holder.stdout.close()


def test_without_flock_a_dead_machine_is_taken_over(tmp_path, monkeypatch):
    """Its process cannot be asked for here, and the file is no longer refreshed."""

    def flock(*_):
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock, "LEASE", 2.0)
    elsewhere = f"import socket\nsocket.gethostname = lambda: 'elsewhere'\n{HOLDER}"
    code = elsewhere.replace(
        "with locked", "import robust_flatness.resumable.lock as r; r.LEASE = 2.0\nwith locked"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(errno.ENOSYS), "0"], check=False)
    assert "elsewhere" in (tmp_path / "lock-lease").read_text()
    start = time.monotonic()
    with locked(tmp_path, "waits", lambda text: None) as waited:
        assert waited
    assert time.monotonic() - start >= lock.LEASE
