"""The epoch of benches/mlp.rs in PyTorch: 6000 x 1024 features, 512 hidden units, 15 classes. Prints one line of JSON."""
import argparse
import json
import statistics
import time

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--batch", type=int, default=256)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
clips, valid, inputs, classes = 6000, 1500, 1024, 15
labels = torch.arange(clips + valid) * 7 % classes
features = torch.randn(classes, inputs)[labels] * 0.12 + torch.randn(clips + valid, inputs)
net = nn.Sequential(
    nn.Linear(inputs, 512), nn.BatchNorm1d(512), nn.GELU(), nn.Dropout(0.5), nn.Linear(512, classes)
)
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
steps = clips // arguments.batch
schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10)
loss = nn.CrossEntropyLoss()
wall, best, cpu = [], 0.0, time.process_time()
for epoch in range(arguments.epochs):
    start = time.perf_counter()
    net.train()
    for step, rows in enumerate(torch.randperm(clips)[: steps * arguments.batch].view(steps, -1)):
        optimizer.zero_grad(set_to_none=True)
        loss(net(features[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step(epoch + step / steps)
    net.eval()
    with torch.inference_mode():
        scores = net(features[clips:])
        loss(scores, labels[clips:])
        best = max(best, (scores.argmax(1) == labels[clips:]).float().mean().item())
    wall.append(time.perf_counter() - start)
cpu = (time.process_time() - cpu) / arguments.epochs
print(json.dumps({"epoch_wall": statistics.median(wall), "epoch_cpu": cpu, "val_accuracy": best}))
