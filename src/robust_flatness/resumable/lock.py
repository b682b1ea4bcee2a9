"""The lock of who goes on with interrupted work."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

#: What flock(2) fails with on file systems that do not implement it.
NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
#: Seconds after which a lock file that its holder no longer refreshes may be taken over.
LEASE = 60.0
#: Seconds between two attempts to get a lock that another process holds.
POLL = 0.2
Report = Callable[[str], None]


@contextlib.contextmanager
def locked(folder: Path, waiting: str, report: Report) -> Iterator[bool]:
    """Hold the lock of `folder`; yields whether another process was waited for (then `waiting` is said).

    A killed workflow leaves its jobs running: the next one waits for them. The kernel frees the lock
    when its holder ends, however it ends. On file systems without flock (some Lustre, NFS and FUSE
    mounts) a file takes its place. Its holder refreshes it; it is taken over once its process on this
    machine is gone, or where it has not been refreshed for `LEASE` seconds, as after the end of
    another machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock", poll_interval=POLL, fallback_to_soft=False)
    with contextlib.ExitStack() as stack:
        try:
            waited = _acquire(lock, stack, folder, waiting, report)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            report(
                f"note: {folder}: no flock on this file system ({error.strerror}); "
                "the file lock-lease in it takes its place"
            )
            lease = filelock.SoftFileLease(folder / "lock-lease", lease_duration=LEASE, poll_interval=POLL)
            waited = _acquire(lease, stack, folder, waiting, report)
        yield waited


def _acquire(
    lock: filelock.BaseFileLock, stack: contextlib.ExitStack, folder: Path, waiting: str, report: Report
) -> bool:
    try:
        stack.enter_context(lock.acquire(blocking=False))
    except filelock.Timeout:
        report(f"{folder.parent}: {waiting}; waiting for it to end")
        stack.enter_context(lock.acquire())
        return True
    return False
