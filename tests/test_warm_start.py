"""Jobs forked by the server: the same as processes of their own, also in how they end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from robust_flatness.warm_start.launch import VARIABLE, run_in_server
from robust_flatness.warm_start.server import THREAD_VARIABLES, start_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server runs on Linux alone")

COMMAND = Path(sys.executable).with_name("robust-flatness")
ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def running(monkeypatch_context):
    monkeypatch_context.delenv(VARIABLE, raising=False)
    process = start_server()
    try:
        yield process, os.environ[VARIABLE]
    finally:
        process.stdin.close()
        process.wait(60)


@pytest.fixture(scope="module")
def server():
    """A server: its process and its address."""
    with pytest.MonkeyPatch.context() as patch, running(patch) as found:
        patch.delenv(VARIABLE)
        yield found


def environment(address: str | None, **changes: str) -> dict[str, str]:
    threads = dict.fromkeys(THREAD_VARIABLES, "1")
    return {k: v for k, v in os.environ.items() if k != VARIABLE} | threads | changes | (
        {VARIABLE: address} if address else {}
    )  # fmt: skip


def run(*arguments, address=None, **options):
    changes = options.pop("changes", {})
    command = [COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(address, **changes), **options
    )


def jobs(server) -> list[psutil.Process]:
    return [p for p in psutil.Process(server[0].pid).children() if p.status() != psutil.STATUS_ZOMBIE]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def long_training(directory: Path, address: str) -> subprocess.Popen:
    """A client whose job trains until it is stopped; returned when the job is at it."""
    spec = run("spec", "train", cwd=ROOT).stdout.replace('"epochs":80', '"epochs":100000')
    assert "100000" in spec
    data = directory / "data.npz"
    prepared = run("prepare", "--spec", run("spec", "data", cwd=ROOT).stdout, "--output", data)
    assert prepared.returncode == 0, prepared.stderr
    client = subprocess.Popen(
        [COMMAND, "train", "--spec", spec, "--data", data, "--directory", directory / "run"],
        env=environment(address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background, too
    )  # fmt: skip
    wait_for((directory / "run/.resume/state").exists)
    return client


def test_commands_give_what_they_give_alone(server, tmp_path):
    for arguments in (
        ["spec", "flatness", "--config", ROOT / "config/digits.yaml"],  # succeeds
        ["spec", "train", "--config", ROOT / "config/digits.yaml", "--variant", "none"],  # an error of ours
        ["prepare", "--spec", "{", "--output", tmp_path / "x.npz"],
        ["train", "--epochs"],  # an error of the command line's
        ["--help"],
    ):
        here, there = (run(*arguments, address=address, cwd=tmp_path) for address in (None, server[1]))
        assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, here.stderr)


def test_jobs_are_forked_by_the_server(server, tmp_path):
    client = long_training(tmp_path, server[1])
    assert [job.ppid() for job in jobs(server)] == [server[0].pid]
    assert psutil.Process(client.pid).memory_info().rss < 50e6  # it has not imported torch
    client.kill()
    client.communicate(timeout=60)
    wait_for(lambda: not jobs(server))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_job_ends_with_its_client(server, tmp_path, number):
    client = long_training(tmp_path, server[1])
    client.send_signal(number)
    client.communicate(timeout=60)
    assert client.returncode in (-number, 128 + number)
    wait_for(lambda: not jobs(server))


def test_a_client_fails_with_its_job(server, tmp_path):
    client = long_training(tmp_path, server[1])
    (job,) = jobs(server)
    job.kill()
    _, errors = client.communicate(timeout=60)
    assert client.returncode == 1
    assert "killed before its end" in errors


def test_time_and_memory_are_the_jobs(server, tmp_path):
    arguments = ["--timings", tmp_path / "t.tsv", "spec", "data", "--config", ROOT / "config/digits.yaml"]
    assert run(*arguments, address=server[1]).returncode == 0
    header, values = ((tmp_path / "t.tsv").read_text().splitlines()[i].split("\t") for i in (0, 1))
    row = dict(zip(header, map(float, values), strict=True))
    assert 0 < row["s"] < 60
    assert 0 <= row["cpu_s"] < 60
    assert row["max_rss_mb"] > 100  # the server has imported torch, the client has not
    assert run("--timings", tmp_path / "failed.tsv", "spec", "none", address=server[1]).returncode == 1
    assert not (tmp_path / "failed.tsv").exists()
    assert run("--timings", tmp_path / "t.tsv/x", *arguments[2:], address=server[1]).returncode == 0


def asked(address: str, redirection: str = "", **changes: str) -> str:
    """What `run_in_server` says of a small command, in a process with these variables."""
    run = "from robust_flatness.warm_start.launch import run_in_server as r"
    script = f"{run}; r_ = r({address!r}, ['x', '--help'])"
    code = f"{sys.executable} -c \"{script}; open('answer', 'w').write(str(r_))\" {redirection}"
    folder = Path(tempfile.mkdtemp())
    subprocess.run(["bash", "-c", code], cwd=folder, env=environment(address, **changes), check=False)
    return (folder / "answer").read_text()


def test_only_jobs_like_the_server_are_taken(server):
    """Libraries read these variables when they are imported; streams that are closed cannot be sent."""
    assert asked(server[1]) == "0"
    assert asked(server[1], OMP_NUM_THREADS="2") == "None"
    assert asked(server[1], PYTHONPATH="/nowhere") == "None"
    for redirection in ("<&-", ">&-", "2>&-"):
        assert asked(server[1], redirection) == "None"
    assert asked(server[1]) == "0"


def test_forked_and_single_processes_give_the_same_bytes(server, tmp_path):
    spec = json.loads(run("spec", "train", cwd=ROOT).stdout)
    spec["training"] |= {"epochs": 2, "history_examples": 20}
    flatness = json.loads(run("spec", "flatness", cwd=ROOT).stdout)
    flatness = json.dumps(flatness | {"test_examples": 20, "train_examples": 20})
    data = run("spec", "data", cwd=ROOT).stdout
    assert run("prepare", "--spec", data, "--output", tmp_path / "d").returncode == 0
    made = {}
    for address in (None, server[1]):
        folder = tmp_path / str(address is None)
        last, data = folder / "checkpoints/last.safetensors", ["--data", tmp_path / "d"]
        steps = [
            ["train", *data, "--spec", json.dumps(spec), "--directory", folder],
            ["measure-checkpoints", "flatness", last, *data, "--spec", flatness, "--output", folder],
        ]
        for step in steps:
            done = run(*step, address=address)
            assert done.returncode == 0, done.stderr
        files = [path for path in folder.rglob("*") if path.is_file() and ".resume" not in path.parts]
        made[address] = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    assert len(made[None]) == 6  # history, three snapshots' names and two, flatness
    assert made[None] == made[server[1]]


def test_without_its_server_a_command_runs_itself(tmp_path):
    assert run_in_server(str(tmp_path / "nobody"), ["robust-flatness", "--help"]) is None
    alone = run("spec", "data", cwd=ROOT)
    orphan = run("spec", "data", address=str(tmp_path / "nobody"), cwd=ROOT)
    assert (orphan.returncode, orphan.stdout) == (0, alone.stdout)


def test_a_server_ends_with_its_owner_but_its_jobs_do_not(monkeypatch, tmp_path):
    with running(monkeypatch) as (process, address):
        client = long_training(tmp_path, address)
        process.stdin.close()
        assert process.wait(60) == 0
        assert not Path(address).parent.exists()
        assert client.poll() is None
        client.kill()
        client.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_server_leaves_nothing(monkeypatch, number):
    with running(monkeypatch) as (process, address):
        assert asked(address) == "0"  # it is up
        process.send_signal(number)
        assert process.wait(60) == 0
        assert not Path(address).parent.exists()


def test_where_no_socket_can_be_made_there_is_no_server(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert start_server() is None
    assert not list(long.iterdir())
    assert VARIABLE not in os.environ


def test_a_server_named_in_the_environment_is_kept(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")
    assert start_server() is None
    assert os.environ[VARIABLE] == ""
