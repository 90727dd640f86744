"""Run a command that the kernel kills as soon as its parent is gone, `kill -9` included.

    python -I -S die_with_parent.py PARENT_PID COMMAND [ARGUMENT ...]

A script of its own, exec'd before the command, because `preexec_fn` may deadlock in a program with
threads and warns there from Python 3.12 on. Standard library only; the pid stays the command's.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # SIGKILL, not SIGTERM: whoever starts next on the same data directory must not have to
        # wait for an orphan that is still shutting down.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            # The parent died before the request was in place, so no signal will ever come.
            sys.exit("the parent is gone")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


main()
