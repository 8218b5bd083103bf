"""The launcher of a run that ends when its sweep does: `python launch.py SWEEP'S_PID COMMAND...`.

This script imports next to nothing. On Linux the system sends SIGTERM to the run when the sweep is
gone, however it ended. The run then saves a checkpoint and ends; until then the lock on its folder
keeps a second writer out. On other systems only the lock does so.
"""

import ctypes
import os
import signal
import sys

# The numbers of Linux's prctl.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 1, 36, 37


def end_with(parent: int) -> None:
    """Ask the system for SIGTERM when the parent is gone; end at once if it is gone already.

    Args:
        parent: The process id of the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the sweep was gone before the request
            sys.exit(128 + signal.SIGTERM)


def is_subreaper() -> bool:
    """Tell whether this process becomes the parent of descendants whose parent is gone."""
    found = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(found))
    return bool(found.value)


def make_subreaper(wanted: bool) -> None:
    """Let this process become the parent of descendants whose parent is gone, or not."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted))


def main() -> None:
    """Ask the system for the signal and become the command."""
    parent, *command = sys.argv[1:]
    end_with(int(parent))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
