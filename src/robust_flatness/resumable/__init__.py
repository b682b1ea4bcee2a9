"""What interrupted work has finished, and the lock of who goes on with it.

A workflow deletes a job's declared outputs before it runs the job again, so nothing that must
survive lies among them: it is kept in a folder `.resume` beside them. Trainings keep the state and
the snapshots of the last finished epoch, measures the parts that they have finished, AutoAttack
what its attacks have left. State carries a checksum and the fingerprint of all that the result
depends on; damaged or foreign state is never taken up.

    .resume/lock          held by the process that is at work (beside it lock-lease, see `locked`)
    .resume/finished      fingerprint of the work that was finished last
    .resume/...           state, described at each class
"""

from robust_flatness.resumable.lock import Report
from robust_flatness.resumable.measure import Unfinished, kept
from robust_flatness.resumable.state import State, StateFile
from robust_flatness.resumable.training import UnfinishedTraining, snapshot_name

__all__ = ["Report", "State", "StateFile", "Unfinished", "UnfinishedTraining", "kept", "snapshot_name"]
