"""Locks, state files, and the finished parts of a job."""

import errno
import fcntl
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch

from robust_flatness.run.resume import Parts, locked
from robust_flatness.runtime.state import StateFile

FINGERPRINT = {"settings": {"xi": 0.5}, "code": "abc"}


def never():
    raise AssertionError("computed again")


def test_a_state_is_loaded_as_it_was_saved(tmp_path):
    file = StateFile(tmp_path / "state", FINGERPRINT)
    assert file.load() is None
    tensors = {"bits": torch.tensor([True, False]), "half": torch.ones(2, 3, dtype=torch.bfloat16)}
    tensors["layout"] = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    file.save({"tensors": tensors, "done": 2, "rows": [0.1 + 0.2]})
    state = file.load()
    loaded = state.pop("tensors")
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert loaded["layout"].stride() == tensors["layout"].stride()
    assert state == {"done": 2, "rows": [0.1 + 0.2]}


def test_finished_parts_are_not_computed_again(tmp_path):
    value = {"x": 0.1 + 0.2, "many": [1e-300, float("inf")], "none": None, "a": {"d": 2, "c": 3}}
    path, messages = tmp_path / "deep/parts.jsonl", []
    computed = Parts(path, print).get("a", FINGERPRINT, lambda: value)
    again = Parts(path, messages.append)
    assert again.get("a", FINGERPRINT, never) == computed == value
    assert again.get("b", FINGERPRINT, lambda: 2) == 2
    assert messages == ["a: taken from an earlier run"]
    # the order of columns follows the keys, computed or stored
    assert str(computed) == str(again.get("a", FINGERPRINT, never))
    assert [*computed] == sorted(value)


@pytest.mark.parametrize("cut", [1, 20])
def test_a_truncated_last_line_is_ignored(cut, tmp_path):
    path = tmp_path / "parts.jsonl"
    parts = Parts(path, print)
    for name in "ab":
        parts.get(name, FINGERPRINT, lambda: 1.5)
    path.write_bytes(path.read_bytes()[:-cut])
    parts = Parts(path, print)
    assert parts.get("a", FINGERPRINT, never) == 1.5
    assert parts.get("b", FINGERPRINT, lambda: 1.5) == 1.5
    assert parts.get("c", FINGERPRINT, lambda: 2.5) == 2.5
    parts = Parts(path, print)
    assert [parts.get(name, FINGERPRINT, never) for name in "abc"] == [1.5, 1.5, 2.5]


HOLDER = textwrap.dedent(
    """
    import errno, fcntl, os, sys, time
    from pathlib import Path
    def flock(*_):
        raise OSError(int(sys.argv[2]), "not here")
    if int(sys.argv[2]):
        fcntl.flock = flock
    from robust_flatness.run.resume import locked
    with locked(Path(sys.argv[1]), "waits", print):
        print("holding", flush=True)
        time.sleep(1)
        os._exit(9)  # as if killed: nothing is released
    """
)


@pytest.fixture(params=[0, errno.ENOLCK])
def error_of_flock(request, monkeypatch):
    """A file system's error number of flock; 0 where it works."""

    def flock(*_):
        raise OSError(request.param, "not here")

    if request.param:
        monkeypatch.setattr(fcntl, "flock", flock)
    return request.param


def test_the_lock_of_a_killed_process_is_waited_for_and_taken_over(tmp_path, error_of_flock):
    """Where flock is missing, the lock is a file, which is reported."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(error_of_flock)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines = iter(holder.stdout.readline, "holding\n")
    assert ["no flock" in line for line in lines] == [True] * bool(error_of_flock)
    threading.Thread(target=holder.wait).start()  # a process that is not waited for remains as a zombie
    messages, start = [], time.monotonic()
    with locked(tmp_path, "another process holds it", messages.append):
        assert holder.wait(10) == 9
    assert 0.3 < time.monotonic() - start < 20
    assert "another process holds it; waiting" in messages[-1]
    holder.stdout.close()
    assert not [text for text in messages[:-1] if "waiting" in text]
    seen = len(messages)
    with locked(tmp_path, "another process holds it", messages.append):
        assert not [text for text in messages[seen:] if "waiting" in text]  # it was released
