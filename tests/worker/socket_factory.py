"""Makes sockets inside a pod for a test outside: a socket belongs for life to the network namespace and the cgroup of
the process that made it. Usage: socket_factory.py CGROUP FD, in the namespace; one line "FAMILY KIND" for each socket.
"""

import os
import socket
import sys
from pathlib import Path

if __name__ == "__main__":
    (Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
    with socket.socket(fileno=int(sys.argv[2])) as channel:
        while line := channel.recv(64):
            family, kind = map(int, line.split())
            with socket.socket(family, kind) as made:
                socket.send_fds(channel, [b"."], [made.fileno()])
