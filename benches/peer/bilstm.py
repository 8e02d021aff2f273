"""The training step of benches/bilstm.rs in PyTorch: batch 32, 128 time steps, 512 -> 2 x 256, 21 labels. Prints one line of JSON."""
import argparse
import json
import statistics
import time

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--steps", type=int, default=20)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
clips, length, inputs, hidden, labels = 32, 128, 512, 256, 21
x = torch.rand(clips, length, inputs) * 3.4 - 1.7
t = ((torch.arange(clips)[:, None] * 7 + torch.arange(labels) * 3) % 5 == 0).float()
lstm = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)
head = nn.Sequential(nn.Dropout(0.5), nn.Linear(2 * hidden, labels))
parameters = [*lstm.parameters(), *head.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=1e-3)
loss = nn.BCEWithLogitsLoss()


def step():
    optimizer.zero_grad(set_to_none=True)
    value = loss(head(lstm(x)[0].max(1).values), t)
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
print(json.dumps({"step_wall": statistics.median(wall), "step_cpu": cpu, "loss": value, "threads": arguments.threads}))
