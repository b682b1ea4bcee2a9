"""Job server: forks each job from a process that has imported torch and the package.

A local run of a small experiment consists of hundreds of jobs of a few seconds, and importing torch
takes two to three of them. The workflow starts a server for its own time; `robust-flatness` finds it
by an environment variable and runs there (see `robust_flatness.warm_start.launch`). A forked job is the same
code in the same state as a process of its own: results are equal byte for byte.

A client connects and sends the length of its request, its standard streams (as descriptors) and
the request. The job answers "accepted", runs, and sends its exit status, one byte. Each side takes the
end of the connection for the end of the other: a job without client is killed, and a client without
job fails. Where a job is not accepted, the client runs it itself.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from robust_flatness.warm_start.launch import ACCEPTED, VARIABLE

#: What the workflow's jobs import.
MODULES = (
    "robust_flatness.cli",
    "robust_flatness.tables.collect",
    "robust_flatness.data",
    "robust_flatness.flatness.scaling",
    "robust_flatness.flatness",
    "robust_flatness.measuring.run",
    "robust_flatness.run.train",
    "robust_flatness.training.pseudo_labels",
    "robust_flatness.run.resume",
    "torch._dynamo",  # as the first step of a torch optimiser does
    "pyautoattack",
    "scipy.sparse.linalg",
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: Read when libraries are imported: a job with other values than the server's needs a process of its own.
READ_ON_IMPORT = (*THREAD_VARIABLES, "PYTHONPATH")


def start_server() -> subprocess.Popen | None:
    """Start a server, name it in this process' environment, and return its process.

    It ends when `stdin` of the process returned is closed, also by the end of this process. None is
    returned, and nothing done, where the environment names a server already (or names "", to do without),
    where a standard stream is closed or there is no place for a socket, and on systems other than Linux,
    where forking is not safe with all system libraries.
    """
    closed = None in (sys.stdin, sys.stdout, sys.stderr)
    if VARIABLE in os.environ or sys.platform != "linux" or closed:
        return None
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="robust-flatness-"))  # for this user alone
        address = str(folder / "server")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(128)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(listener.fileno()), address],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                env=dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, "1"),  # as Snakemake sets them
            )
    except OSError:  # the path of a socket is bounded
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return None
    os.environ[VARIABLE] = address
    return process


def serve(listener: socket.socket, alive: int) -> None:
    """Fork a job for each connection until the descriptor `alive` is at its end."""
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        ready, _, _ = select.select([listener, alive], [], [])
        if alive in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            _run_job(connection)
        connection.close()


def preload() -> None:
    """Import what jobs need, and note what was imported: the source may change while the server runs."""
    for name in MODULES:
        importlib.import_module(name)
    from robust_flatness.runtime.provenance import git_commit, source_digest

    source_digest()
    git_commit()
    gc.collect()
    gc.freeze()  # collections in the jobs leave these objects, and so the memory shared, alone


def _run_job(connection: socket.socket) -> None:
    """In the forked process: read the request, run it, report its status, end."""
    status = 1
    try:
        size, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
        request = json.loads(_receive(connection, int.from_bytes(size, "big")))
        environment = request["environment"]
        if any(environment.get(name) != os.environ.get(name) for name in READ_ON_IMPORT):
            return
        for standard, descriptor in enumerate(descriptors):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        # the server's own streams know whether their files could be sought in; these may be pipes
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None
        sys.argv = request["argv"]
        if request["interruptible"]:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        connection.sendall(ACCEPTED)
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        from robust_flatness.cli import main

        status = _status(main)
        connection.sendall(bytes([status]))
    finally:
        os._exit(status)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ConnectionError("the client is gone")
    return data


def _end_with(connection: socket.socket) -> None:
    """Kill this process when the client's end of the connection is closed."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _status(function: Callable[[], None]) -> int:
    """Call `function` as the main program; the exit status."""
    try:
        function()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        status = 130
    except BaseException:  # as the interpreter does at its end
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 120  # as the interpreter's
    return status & 0xFF


def main() -> None:
    """`python -m robust_flatness.warm_start.server <descriptor of the listening socket> <its path>`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the jobs
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit())
    listener = socket.socket(fileno=int(sys.argv[1]))
    try:
        serve(listener, alive=sys.stdin.fileno())
    finally:
        shutil.rmtree(Path(sys.argv[2]).parent, ignore_errors=True)


if __name__ == "__main__":
    main()
