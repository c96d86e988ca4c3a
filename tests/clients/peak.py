"""Runs a command and writes what its largest process took: `peak.py FILE COMMAND ...`.

FILE gets the command's process number at once, and kilobytes in a second line at the end. A process
of its own, since Linux counts the memory of a process that starts another into the other's peak.
"""

import os
import subprocess
import sys

with open(sys.argv[1], "w", encoding="ascii") as out:
    child = subprocess.Popen(sys.argv[2:])
    print(child.pid, file=out, flush=True)
    _, status, usage = os.wait4(child.pid, 0)
    print(usage.ru_maxrss, file=out, flush=True)
sys.exit(os.waitstatus_to_exitcode(status))
