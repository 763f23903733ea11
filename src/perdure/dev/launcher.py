"""Starts a program that must not outlive its parent: `launcher.py PARENT_PID SIGNAL PROGRAM [ARG…]`.

A file of its own that imports nothing of perdure, because it runs before every process the
platform starts (about 15 ms). On Linux the kernel sends SIGNAL to the program when the thread
that started it ends, even by SIGKILL; elsewhere a later start cleans up what was left.
"""

import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            sys.exit(f"launcher: prctl failed with errno {ctypes.get_errno()}")
        if os.getppid() != int(parent):  # it died before we could ask to be told
            sys.exit("launcher: the platform is gone")
    try:
        os.execvp(program, [program, *arguments])  # noqa: S606  # becoming the program is the purpose
    except OSError as error:
        sys.exit(f"cannot start {program}: {error.strerror}")


main()
