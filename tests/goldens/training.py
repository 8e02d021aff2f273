#!/usr/bin/env python3
"""Reference values of losses, optimizers, schedules and the BiLSTM from PyTorch, in f64 -> fixtures/training.safetensors, fixtures/bilstm.safetensors.

- loss.NAME.value and .gradient: binary cross-entropy (with and without pos_weight), weighted cross-entropy, the asymmetric
  loss and the focal loss as defined in their papers, with autograd, on logits from -30 to 30.
- optimizer.NAME.STEP: parameters after each of ten steps with the gradients `optimizer.gradients`.
- schedule.NAME: learning rate of each of twelve epochs.
- bilstm: LSTM (bidirectional, packed sequences of several lengths), maximum over the steps of each clip, linear, asymmetric loss;
  compat: LayerNorm, zeros on the left, BiLSTM, last step, MaxPool1d(4), linear, binary cross-entropy. Parameters, logits,
  loss and every gradient.
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures"
torch.set_default_dtype(torch.float64)
torch.manual_seed(11)


def asymmetric(z, t, positive, negative, margin):
    p = torch.sigmoid(z)
    shifted = (p - margin).clamp(min=0)
    return -(t * (1 - p) ** positive * torch.nn.functional.logsigmoid(z) + (1 - t) * shifted**negative * torch.log(1 - shifted)).mean()


def focal(z, t, gamma, alpha):
    p, log, other = torch.sigmoid(z), nn.functional.logsigmoid(z), nn.functional.logsigmoid(-z)
    return -(alpha * t * (1 - p) ** gamma * log + (1 - alpha) * (1 - t) * p**gamma * other).mean()


def losses():
    n, c = 9, 6
    z = 3 * torch.randn(n, c)
    z[0], z[1] = torch.linspace(-30, 30, c), torch.linspace(25, -25, c)
    t = (torch.rand(n, c) < 0.4).double()
    t[2], t[3] = 0, 1
    classes = torch.randint(0, c, (n,))
    weight = 0.3 + 3 * torch.rand(c)
    out = {"loss.logits": z, "loss.targets": t, "loss.classes": classes.double(), "loss.weights": weight}
    for name, loss in {
        "bce": lambda z: nn.functional.binary_cross_entropy_with_logits(z, t),
        "bce_weighted": lambda z: nn.functional.binary_cross_entropy_with_logits(z, t, pos_weight=weight),
        "cross_entropy": lambda z: nn.functional.cross_entropy(z, classes),
        "cross_entropy_weighted": lambda z: nn.functional.cross_entropy(z, classes, weight=weight),
        "asymmetric": lambda z: asymmetric(z, t, 0.0, 4.0, 0.05),
        "asymmetric_both": lambda z: asymmetric(z, t, 1.0, 2.5, 0.2),
        "focal": lambda z: focal(z, t, 2.0, 0.25),
        "focal_half": lambda z: focal(z, t, 0.5, 0.7),
    }.items():
        x = z.clone().requires_grad_()
        value = loss(x)
        value.backward()
        out |= {f"loss.{name}.value": value.detach().reshape(1), f"loss.{name}.gradient": x.grad}
    return out


def optimizers():
    start, gradients = torch.randn(20), torch.randn(10, 20)
    out = {"optimizer.start": start, "optimizer.gradients": gradients}
    for name, make in {
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
        "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.1),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
        "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    }.items():
        p = nn.Parameter(start.clone())
        optimizer = make([p])
        steps = []
        for gradient in gradients:
            p.grad = gradient.clone()
            optimizer.step()
            steps.append(p.detach().clone())
        out[f"optimizer.{name}"] = torch.stack(steps)
    return out


def schedules():
    out = {}
    for name, make in {
        "step": lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=5, gamma=0.3),
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=12),
        "warm_cosine": lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [torch.optim.lr_scheduler.LambdaLR(o, lambda e: (e + 1) / 3), torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=9)],
            milestones=[3],
        ),
    }.items():
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
        schedule, rates = make(optimizer), []
        for _ in range(12):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        out[f"schedule.{name}"] = torch.tensor(rates)
    return out


def bilstm():
    lengths, inputs, hidden, classes = [3, 7, 1, 5, 7], 5, 4, 3
    sequences = [torch.randn(n, inputs) for n in lengths]
    t = (torch.rand(len(lengths), classes) < 0.5).double()
    out = {"rows": torch.cat(sequences), "lengths": torch.tensor(lengths).double(), "targets": t}

    def keep(prefix, module, logits, loss):
        loss.backward()
        out[f"{prefix}.logits"], out[f"{prefix}.loss"] = logits.detach(), loss.detach().reshape(1)
        for name, parameter in module.named_parameters():
            out[f"{prefix}.{name}"], out[f"{prefix}.gradient.{name}"] = parameter.detach(), parameter.grad

    module = nn.ModuleDict({"lstm": nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True), "linear": nn.Linear(2 * hidden, classes)})
    packed = nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    states, _ = nn.utils.rnn.pad_packed_sequence(module["lstm"](packed)[0], batch_first=True, padding_value=-torch.inf)
    logits = module["linear"](states.max(1).values)
    keep("max", module, logits, asymmetric(logits, t, 0.0, 4.0, 0.05))

    module = nn.ModuleDict({"norm": nn.LayerNorm(inputs), "lstm": nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True), "linear": nn.Linear(hidden // 2, classes)})
    with torch.no_grad():
        module["norm"].weight.add_(0.3 * torch.randn(inputs))
        module["norm"].bias.add_(0.3 * torch.randn(inputs))
    padded = torch.stack([torch.cat([torch.zeros(8 - len(s), inputs), s]) for s in sequences])
    last = module["lstm"](module["norm"](padded))[0][:, -1]
    logits = module["linear"](nn.functional.max_pool1d(last, 4))
    keep("compat", module, logits, nn.functional.binary_cross_entropy_with_logits(logits, t))
    return out


made = {"made_by": f"tests/goldens/training.py, torch {torch.__version__.split('+')[0]}"}
for name, tensors in {"training": losses() | optimizers() | schedules(), "bilstm": bilstm()}.items():
    save_file({key: value.contiguous() for key, value in tensors.items()}, OUT / f"{name}.safetensors", made)
    print(f"{OUT / name}.safetensors: torch {torch.__version__}", file=sys.stderr)
