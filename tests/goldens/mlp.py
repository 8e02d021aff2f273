#!/usr/bin/env python3
"""Nine AdamW steps of perceptrons with PyTorch, in f32 and f64 -> fixtures/mlp.safetensors, fixtures/mlp_layers.safetensors (two hidden layers).

Linear -> BatchNorm1d -> GELU (-> Linear -> BatchNorm1d -> GELU) -> Linear (dropout 0), cross-entropy, CosineAnnealingWarmRestarts(T_0=1, T_mult=2) set
after every optimizer step to epoch + step / 3: a restart after the first of the three epochs.
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures"
INPUTS, CLASSES, BATCH, STEPS, EPOCHS = 12, 5, 10, 3, 3


def run(hidden, dtype):
    torch.manual_seed(7)
    sizes, layers = [INPUTS, *hidden], []
    for inputs, units in zip(sizes, hidden):
        layers += [nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.GELU(), nn.Dropout(0.0)]
    net = nn.Sequential(*layers, nn.Linear(sizes[-1], CLASSES))
    with torch.no_grad():   # no parameter starts at 0 or 1
        for i, units in enumerate(hidden):
            for p in (net[4 * i + 1].weight, net[4 * i + 1].bias):
                p.add_(0.2 * torch.randn(units))
    net = net.to(dtype)
    classes = torch.randint(0, CLASSES, (EPOCHS * STEPS, BATCH))
    features = (torch.randn(EPOCHS * STEPS, BATCH, INPUTS) + 0.5 * torch.randn(CLASSES, INPUTS)[classes]).to(dtype)
    out = {"features": features, "classes": classes.to(dtype)}

    def keep(step):
        for name, value in net.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                out[f"{step}.{name}"] = value.clone()

    keep(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=2)
    losses, rates = [], []
    for step in range(EPOCHS * STEPS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(features[step]), classes[step])
        loss.backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(step // STEPS + (step % STEPS) / STEPS)
        losses.append(loss.item())
        keep(step + 1)
    net.eval()
    with torch.no_grad():
        out["probabilities"] = net(features[0]).softmax(1)
    out["losses"], out["rates"] = torch.tensor(losses, dtype=dtype), torch.tensor(rates, dtype=dtype)
    return out


for file, hidden in {"mlp": [16], "mlp_layers": [8, 6]}.items():
    types = {"f32": torch.float32, "f64": torch.float64}
    tensors = {f"{name}.{key}": value.contiguous() for name, dtype in types.items() for key, value in run(hidden, dtype).items()}
    save_file(tensors, OUT / f"{file}.safetensors", {"made_by": f"tests/goldens/mlp.py, torch {torch.__version__.split('+')[0]}"})
    print(f"{OUT / file}.safetensors: torch {torch.__version__}", file=sys.stderr)
