"""Entry point of the command line: hands the command to a job server where one is named.

Imports next to nothing, since importing torch takes longer than many a job of a small experiment.
The protocol is described in `robust_flatness.warm_start.server`.
"""

import json
import os
import signal
import socket
import sys

#: Environment variable with the server's socket.
VARIABLE = "ROBUST_FLATNESS_SERVER"
ACCEPTED = b"accepted"


def main() -> None:
    """Run the command of `sys.argv` in the server named in the environment, or else here."""
    address = os.environ.get(VARIABLE)
    try:
        status = run_in_server(address, sys.argv) if address else None
    except KeyboardInterrupt:  # the job has got it, too
        sys.exit(130)
    if status is None:
        from robust_flatness.cli import main as run_here

        run_here()
    else:
        sys.exit(status)


def run_in_server(address: str, argv: list[str]) -> int | None:
    """The exit status of the command `argv`; None where the server is gone or does not take it.

    The job has this process' environment, working directory and standard streams, which must be open.
    It is killed when this process ends before it.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        return None
    request = {"argv": argv, "directory": os.getcwd(), "environment": dict(os.environ)}
    # a command in the background of a script leaves Ctrl-C alone
    request["interruptible"] = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
    message = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [len(message).to_bytes(8, "big")], [0, 1, 2])
            connection.sendall(message)
            taken = connection.recv(len(ACCEPTED), socket.MSG_WAITALL) == ACCEPTED
        except OSError:
            taken = False
        if not taken:
            return None
        try:
            answer = connection.recv(1)
        except OSError:
            answer = b""
    if not answer:
        print("error: the job was killed before its end", file=sys.stderr)
        return 1
    return answer[0]
