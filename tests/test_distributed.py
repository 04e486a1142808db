"""Two processes that share their statistics compute what one process with the whole batch computes."""

import os
import subprocess
import sys
from pathlib import Path


def test_two_processes_are_one():
    worker = Path(__file__).with_name("distributed_worker.py")
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(worker)], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("largest relative difference") == 4
