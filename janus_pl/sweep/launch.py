"""Starts a run that ends when its sweep does: `python launch.py SWEEP'S_PID COMMAND...`.

A script of its own that imports next to nothing. On Linux the system sends SIGTERM to the run when
the sweep is gone, however it went; the run then saves a checkpoint and ends, and the lock on its
folder keeps a second writer out until it has. Elsewhere that lock alone does.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal and become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it went before it was asked for
            sys.exit(128 + signal.SIGTERM)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
