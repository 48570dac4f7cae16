#!/usr/bin/env python3
"""launch.py N COMMAND...: COMMAND as N plain processes that find the variables torchrun sets. For where it is not."""
import os
import signal
import socket
import subprocess
import sys
import time

if len(sys.argv) < 3 or not sys.argv[1].isdigit():
    sys.exit(__doc__)
world, command = int(sys.argv[1]), sys.argv[2:]
with socket.socket() as s:  # a port that is free now, and that rank 0 takes in a moment
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]


def environment(rank):
    return dict(os.environ, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
ranks = [subprocess.Popen(command, env=environment(rank)) for rank in range(world)]
try:
    while any(r.poll() is None for r in ranks):
        time.sleep(0.02)
        if any(r.returncode for r in ranks):  # the others find out by themselves; no longer than this
            for r in ranks:
                r.wait(timeout=40)
    sys.exit(max(abs(r.returncode) for r in ranks))
except subprocess.TimeoutExpired:
    sys.exit(1)
finally:
    for r in ranks:
        if r.poll() is None:
            r.kill()
