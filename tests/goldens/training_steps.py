#!/usr/bin/env python3
"""Reference values of the training of networks: losses and gradients of torchvision's networks in PyTorch, in f64.

    python tests/goldens/training_steps.py

Needs numpy, torch and torchvision. Writes fixtures/train/steps.json: for R(2+1)D-18 and ResNet-50 on a batch of integer inputs, in
each of three modes,

    rate        the learning rate
    losses      of ten steps, each before its update
    gradients   of the first step, of every trained parameter; in the mode eval, also of the batch norms
    statistics  running means and variances of all batch norms after the ten steps
    logits      in evaluation mode after the ten steps

The modes:

    train       batch statistics; all parameters are trained
    eval        running statistics; all parameters but those of batch norms are trained
    frozen      some layers are frozen; their batch norms keep their running statistics, and the others use batch statistics

A tensor is stored as its norm and two products with pseudo-random signs (see `digest`).
"""
import json
import pathlib

import numpy as np
import torch
import torchvision
from networks import integers, seeded
from torch import nn
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLASSES = 5
STEPS = 10


def cross_entropy(logits, targets):
    return functional.cross_entropy(logits, targets.argmax(1))


def asymmetric(logits, targets, positive=0.0, negative=4.0, margin=0.05):
    """Ridnik et al. 2021, equations 4 to 6; the mean over clips and labels."""
    p = torch.sigmoid(logits)
    shifted = (p - margin).clamp(min=0)
    terms = targets * (1 - p) ** positive * functional.logsigmoid(logits) + (1 - targets) * shifted**negative * torch.log(1 - shifted)
    return -terms.mean()


class R2Plus1D:
    """SGD with momentum and weight decay, and the binary cross-entropy, as in pipelines/train/r2plus1d.toml."""

    losses = dict.fromkeys(("train", "eval", "frozen"), functional.binary_cross_entropy_with_logits)
    rates = dict.fromkeys(losses, 1e-3)
    shape = (3, 4, 32, 32)
    windows = [1, 1, 1]
    end_of_block = "conv2.1.weight"

    @staticmethod
    def make():
        network = torchvision.models.video.r2plus1d_18(weights=None)
        network.fc = nn.Linear(512, CLASSES)
        return network

    @staticmethod
    def frozen(name):
        return name.startswith(("stem.", "layer1.", "layer2.0."))

    @staticmethod
    def optimizer(parameters, rate):
        return torch.optim.SGD(parameters, lr=rate, momentum=0.8, weight_decay=5e-3)


class ResNet50:
    """Adam and a head with a hidden layer, as in pipelines/train/resnet50.toml. The logits of a clip's frames are averaged."""

    losses = {"train": cross_entropy, "eval": cross_entropy, "frozen": asymmetric}
    rates = {"train": 4e-6, "eval": 4e-6, "frozen": 2e-5}  # in f32, larger ones amplify rounding errors
    shape = (3, 48, 48)
    windows = [2, 1, 1, 2]
    end_of_block = "bn3.weight"

    @staticmethod
    def make():
        network = torchvision.models.resnet50(weights=None)
        network.fc = nn.Sequential(nn.Linear(2048, 32), nn.ReLU(), nn.Dropout(0.0), nn.Linear(32, CLASSES))
        return network

    @staticmethod
    def frozen(name):
        return not name.startswith(("layer4.2.", "fc."))

    @staticmethod
    def optimizer(parameters, rate):
        return torch.optim.Adam(parameters, lr=rate)


def initial(network, end_of_block):
    """The seeded values of networks.py, except for weights: uniform with the bound sqrt(6 / fan_in) of Kaiming's initialization. The
    scales at the end of residual branches are smaller, so that rounding errors are not amplified from block to block."""
    state = seeded(network, 0, lambda name: (1.0, 1))
    for name, tensor in state.items():
        if tensor.dim() > 1:
            values = integers(name, 0, tensor.numel()) / 32768.0 * (6.0 / tensor[0].numel()) ** 0.5
            state[name] = torch.from_numpy(values.astype(np.float32).reshape(tuple(tensor.shape)))
        elif name.endswith(end_of_block):
            state[name] = 0.2 * tensor
    return state


def digest(tensor):
    """The norm, and the products with two vectors of signs: +1 where i²·m mod 65537 is below 32768, otherwise -1, for i = 1, 2, …"""
    flat = tensor.detach().double().flatten()
    squares = torch.arange(1, flat.numel() + 1) ** 2
    signs = [torch.where(squares * m % 65537 < 32768, 1.0, -1.0).double() for m in (12345, 54321)]
    return [flat.norm().item()] + [(flat * sign).sum().item() for sign in signs]


def targets(loss, clips):
    """Clip i has the label i mod 5, and with losses of several labels also 2·i + 2 mod 5."""
    labels = torch.arange(clips)
    hot = functional.one_hot(labels % CLASSES, CLASSES)
    return hot if loss is cross_entropy else hot | functional.one_hot((2 * labels + 2) % CLASSES, CLASSES)


def gradients(network):
    return {name: digest(parameter.grad) for name, parameter in network.named_parameters() if parameter.grad is not None}


def run(case, mode):
    network = case.make()
    network.load_state_dict(initial(network, case.end_of_block))
    network.double().train()
    norms = {name: module for name, module in network.named_modules() if "BatchNorm" in type(module).__name__}
    loss = case.losses[mode]
    y = targets(loss, len(case.windows)).double()
    items = sum(case.windows)
    x = integers("input", 0, items * int(np.prod(case.shape))) / 16384.0
    x = torch.from_numpy(x.reshape(items, *case.shape)).double()

    def logits():
        return torch.stack([clip.mean(0) for clip in network(x).split(case.windows)])

    result = {"rate": case.rates[mode]}
    if mode == "eval":
        network.eval()
        loss(logits(), y).backward()
        result["gradients"] = gradients(network)
        for norm in norms.values():
            norm.requires_grad_(False)
    if mode == "frozen":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not case.frozen(name))
        for norm in norms.values():
            norm.train(norm.weight.requires_grad)
    optimizer = case.optimizer([parameter for parameter in network.parameters() if parameter.requires_grad], case.rates[mode])
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = loss(logits(), y)
        value.backward()
        losses.append(value.item())
        result.setdefault("gradients", gradients(network))
        optimizer.step()
    network.eval()
    result["losses"] = losses
    result["statistics"] = {
        f"{name}.{key}": digest(getattr(norm, key)) for name, norm in norms.items() for key in ("running_mean", "running_var")
    }
    with torch.no_grad():
        result["logits"] = [[float(value) for value in row] for row in logits()]
    return result


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else float(f"{value:.8g}")


def main():
    document = {"versions": {"torch": torch.__version__.split("+")[0], "torchvision": torchvision.__version__.split("+")[0]}}
    for name, case in {"r2plus1d_18": R2Plus1D, "resnet50": ResNet50}.items():
        document[name] = {}
        for mode in case.losses:
            result = run(case, mode)
            print(f"{name} {mode}: losses {result['losses'][0]:.4f} to {result['losses'][-1]:.4f}", flush=True)
            document[name][mode] = rounded(result)
    path = ROOT / "fixtures" / "train" / "steps.json"
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
