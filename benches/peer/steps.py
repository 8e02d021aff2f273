"""What the training steps of classifiers of sequences share: the data and the measurement, as in benches/common/mod.rs."""
import argparse
import json
import statistics
import time

import torch

CLIPS, LENGTH, INPUTS, LABELS = 32, 128, 512, 21

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--steps", type=int, default=20)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
x = torch.rand(CLIPS, LENGTH, INPUTS) * 3.4 - 1.7
t = ((torch.arange(CLIPS)[:, None] * 7 + torch.arange(LABELS) * 3) % 5 == 0).float()


def measure(parameters, logits):
    """Trains `parameters` by AdamW with the binary cross-entropy of `logits()`, and prints one line of JSON."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    loss = torch.nn.BCEWithLogitsLoss()

    def step():
        optimizer.zero_grad(set_to_none=True)
        value = loss(logits(), t)
        value.backward()
        optimizer.step()
        return value.item()

    for _ in range(3):
        step()
    wall, cpu = [], time.process_time()
    for _ in range(arguments.steps):
        start = time.perf_counter()
        value = step()
        wall.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / arguments.steps
    times = {"step_wall": statistics.median(wall), "step_cpu": cpu}
    print(json.dumps(times | {"loss": value, "threads": arguments.threads}))
