"""Stand-ins for the work of a process that runs figures, and the command line with such processes."""

import os
import signal
import sys
import time

from experiments import __main__ as command_line
from experiments.harness import processes, running

FIGURES = ("geometry/simplex", "razor/em")


def die(configs, out):
    """What the kernel does to a process that has taken all memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def nap(configs, out):
    """Say that this process is at work, and do not finish."""
    (out / str(os.getpid())).touch()
    time.sleep(3600)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    running.cores = lambda: 2
    processes._execute_group = nap
    sys.exit(command_line.main([*FIGURES, "--quick", "--out", sys.argv[1]]))
