"""Time of a training step of each arm of the race, in Node and in torch with one thread, in turns; medians.

    python tests/book/network_speed.py [--batch 32] [--rounds 50]

The processor's time is measured as well as the clock's: on a busy machine the clock says little.
"""

import argparse
import json
import statistics
import subprocess
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from playwright._impl._driver import compute_driver_executable

from ndlib.bookwork.widgets import race

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "ndlib" / "bookwork" / "widgets"
METHODS = {"none": "plain", "bn": "BN", "nd": "ND"}


class Node:
    """Takes one step of an arm on demand."""

    def __init__(self, batch):
        command = [compute_driver_executable()[0], str(HERE / "network_speed.mjs"), str(MODULES), str(batch)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        images = race.digits().images[:batch].flatten().tolist()
        self.process.stdin.write(json.dumps(images) + "\n")

    def step(self, engine, method):
        """Milliseconds of the processor and of the clock."""
        self.process.stdin.write(json.dumps([engine, method]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def torch_step(model, optimizer, x, labels):
    start = time.process_time(), time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(model(x), labels).backward()
    optimizer.step()
    return [1e3 * (time.process_time() - start[0]), 1e3 * (time.perf_counter() - start[1])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*rows for a covariance")
    x = race.digits().images[: args.batch]
    labels = torch.arange(args.batch) % 10
    node = Node(args.batch)
    print(f"batch {args.batch}, n = {args.rounds}: milliseconds of the processor (of the clock)")
    for method, name in METHODS.items():
        model = race.network(method, 0)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=race.MOMENTUM, weight_decay=race.DECAY)
        steps = {
            "torch": lambda m=model, o=optimizer: torch_step(m, o, x, labels),
            "WebAssembly": lambda method=method: node.step("vector", method),
            "JavaScript": lambda method=method: node.step("plain", method),
        }
        times = {what: [] for what in steps}
        for turn in range(args.rounds + 10):
            for what, step in steps.items():
                taken = step()
                if turn >= 10:  # before, code is still being compiled
                    times[what].append(taken)
        medians = {what: [statistics.median(column) for column in zip(*t, strict=True)] for what, t in times.items()}
        line = [f"{what} {processor:6.2f} ({clock:6.2f})" for what, (processor, clock) in medians.items()]
        ratios = [f"{medians[what][0] / medians['torch'][0]:.2f}" for what in ("WebAssembly", "JavaScript")]
        print(f"{name:6} {'   '.join(line)}   times torch's: {' and '.join(ratios)}", flush=True)
    node.process.stdin.close()
    node.process.wait()


if __name__ == "__main__":
    main()
