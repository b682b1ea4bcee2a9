"""An interrupted measuring job goes on where it was, and two never write at once."""

import subprocess
import sys
import textwrap
import time

import pytest

from robust_flatness.unfinished import Unfinished

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
    monkeypatch.setattr("robust_flatness.unfinished.source_digest", lambda: "other")
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
    from robust_flatness.unfinished import Unfinished
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
