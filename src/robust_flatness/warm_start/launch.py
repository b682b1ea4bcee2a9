"""Entry point of the command line: hands the command to a job server where one is named.

Imports next to nothing, since importing torch takes longer than many a job of a small experiment, and
Ctrl-C while it does is caught.
The protocol is described in `robust_flatness.warm_start.server`.
"""

import os
import sys

#: Environment variable with the server's socket.
VARIABLE = "ROBUST_FLATNESS_SERVER"
ACCEPTED = b"accepted"
#: The status of a command that Ctrl-C has ended, as shells have it.
INTERRUPTED = 130


def main() -> None:
    """Run the command of `sys.argv` in the server named in the environment, or else here. Interrupted, it
    ends with one line and status 130."""
    pressed = []
    try:
        import signal

        def interrupt(*_: object) -> None:
            pressed.append(True)
            raise KeyboardInterrupt

        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt)
        status = _run()
    except BaseException as error:  # Python makes another error of Ctrl-C within some imports
        if not pressed and not isinstance(error, KeyboardInterrupt):
            raise
        status = INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is the end of the interpreter
    if status and (pressed or status == INTERRUPTED):
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)


def _run() -> int | str | None:
    address = os.environ.get(VARIABLE)
    status = run_in_server(address, sys.argv) if address else None
    if status is None:
        try:
            from robust_flatness.cli import main as run_here

            run_here()
        except SystemExit as end:
            return end.code
    return status


def run_in_server(address: str, argv: list[str]) -> int | None:
    """The exit status of the command `argv`; None where the server is gone or does not take it.

    The job has this process' environment, working directory and standard streams, which must be open.
    It is killed when this process ends before it.
    """
    import json
    import signal
    import socket

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
