"""The training step of benches/transformer.rs in PyTorch: batch 32, 128 rows, 512 features, 8 heads, 1024 hidden units, 21 labels. Prints one
line of JSON."""
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
clips, length, inputs, heads, labels = 32, 128, 512, 8, 21
x = torch.rand(clips, length, inputs) * 3.4 - 1.7
t = ((torch.arange(clips)[:, None] * 7 + torch.arange(labels) * 3) % 5 == 0).float()
positions = nn.Parameter(torch.randn(1, length, inputs) * 0.02)
encoder = nn.TransformerEncoderLayer(inputs, heads, 1024, 0.1, "gelu", batch_first=True)
encoder.self_attn.dropout = 0.0  # ours has no dropout of the weights of the attention
head = nn.Linear(inputs, labels)
parameters = [positions, *encoder.parameters(), *head.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=1e-3)
loss = nn.BCEWithLogitsLoss()


def step():
    optimizer.zero_grad(set_to_none=True)
    value = loss(head(encoder(x + positions).mean(dim=1)), t)
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
