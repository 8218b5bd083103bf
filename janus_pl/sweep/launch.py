"""The launcher of a run that ends when its sweep does: `python launch.py SWEEP'S_PID COMMAND...`.

This script imports next to nothing. On Linux the system sends SIGTERM to the run when the sweep is
gone, however it ended. The run then saves a checkpoint and ends; until then the lock on its folder
keeps a second writer out. On other systems only the lock does so.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the system for the signal and become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # the sweep was gone before the request
            sys.exit(128 + signal.SIGTERM)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
