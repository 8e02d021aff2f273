"""benches/train.rs in PyTorch and torchvision: training steps from the weights and the batch that it wrote, and epochs with a DataLoader.

    train.py step FILE --recipe r2plus1d            steps on the batch of FILE
    train.py frames FILE MANIFEST --recipe R        the difference of the inputs of all clips from those in FILE
    train.py epoch MANIFEST --recipe R              epochs on the training clips

Prints one line of JSON, with the keys of benches/train.rs.
"""
import argparse
import csv
import json
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time
import tomllib

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet50
from torchvision.models.video import r2plus1d_18
from torchvision.transforms import v2

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "pipelines" / "train"
LABELS, COMPARED = 85, 3


class AsymmetricLoss(nn.Module):
    """Ben-Baruch et al. 2021, with the mean over the elements."""

    def __init__(self, gamma_negative, gamma_positive, margin):
        super().__init__()
        self.gamma_negative, self.gamma_positive, self.margin = gamma_negative, gamma_positive, margin

    def forward(self, logits, targets):
        p = torch.sigmoid(logits)
        q = (1 - p + self.margin).clamp(max=1)
        loss = targets * p.clamp(min=1e-8).log() + (1 - targets) * q.clamp(min=1e-8).log()
        gamma = self.gamma_positive * targets + self.gamma_negative * (1 - targets)
        return -(loss * (1 - p * targets - q * (1 - targets)).pow(gamma)).mean()


def make_loss(recipe):
    settings = recipe.get("loss", {})
    if settings.get("kind") == "bce":
        return nn.BCEWithLogitsLoss()
    if settings.get("kind") == "asymmetric":
        return AsymmetricLoss(settings["gamma_negative"], settings["gamma_positive"], settings["margin"])
    return nn.CrossEntropyLoss()


def make_network(recipe, classes):
    """The network with its head, and the modules that are frozen."""
    settings = recipe["network"]
    net = {"r2plus1d_18": r2plus1d_18, "resnet50": resnet50}[settings["card"]]()
    head, dim = settings.get("head", {}), net.fc.in_features
    dropout, hidden = head.get("dropout", 0.0), head.get("hidden", 0)
    if hidden:
        net.fc = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes))
    else:
        net.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, classes)) if dropout else nn.Linear(dim, classes)
    trained = [f"{prefix}." for prefix in settings.get("trainable", [])]
    frozen = []
    if trained:
        for name, module in net.named_modules():
            if not list(module.children()) and not f"{name}.".startswith((*trained, "fc.")):
                module.requires_grad_(False)
                frozen.append(module)
    return net, frozen


def make_optimizer(recipe, net):
    settings = recipe["optimizer"]
    kind, rate, decay = settings["kind"], settings["learning_rate"], settings["weight_decay"]
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if kind == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=settings["momentum"], weight_decay=decay, fused=True)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[kind](parameters, rate, weight_decay=decay, fused=True)


class Trainer:
    def __init__(self, recipe, classes, channels_last):
        self.net, self.frozen = make_network(recipe, classes)
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        self.format = formats[5 if "r2plus1d" in recipe["network"]["card"] else 4] if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.format)
        self.optimizer = make_optimizer(recipe, self.net)
        self.loss = make_loss(recipe)

    def step(self, windows, targets):
        """One step on windows (clips, windows, channels, [frames,] height, width), whose logits are averaged per clip."""
        inputs = windows.flatten(0, 1).contiguous(memory_format=self.format)
        logits = self.net(inputs).view(*windows.shape[:2], -1).mean(1)
        loss = self.loss(logits, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def train(self):
        self.net.train()
        for module in self.frozen:
            module.eval()


def cpu_seconds():
    """The user and system time of this process and of the workers of a DataLoader."""
    ticks = 0
    for pid in ["self", *(child.pid for child in multiprocessing.active_children())]:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def step(arguments, recipe):
    from safetensors import safe_open

    with safe_open(arguments.file, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        seeds = json.loads(file.metadata()["seeds"])
    windows, targets = tensors.pop("batch.inputs"), tensors.pop("batch.targets")
    windows = windows.unflatten(0, (len(targets), -1))
    trainer = Trainer(recipe, LABELS, arguments.channels_last)
    missing, unexpected = trainer.net.load_state_dict(tensors, strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise SystemExit(f"{arguments.file}: other parameters: {missing}, {unexpected}")
    trainer.train()
    losses = []
    for seed in seeds:
        torch.manual_seed(seed)
        losses.append(trainer.step(windows, targets))
    wall, cpu = [], cpu_seconds()
    for _ in range(arguments.steps):
        start = time.perf_counter()
        trainer.step(windows, targets)
        wall.append(time.perf_counter() - start)
    cpu = (cpu_seconds() - cpu) / arguments.steps
    return {"step_wall": statistics.median(wall), "step_cpu": cpu, "losses": losses, "threads": torch.get_num_threads()}


class Clips(Dataset):
    """Windows (1, channels, frames, height, width) and the labels of the clips of a manifest."""

    def __init__(self, manifest, length, transform):
        with open(manifest, newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.directory, self.length, self.transform = manifest.parent, length, transform
        self.classes = sorted({row["label"] for row in self.rows})

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        from torchcodec.decoders import VideoDecoder

        row = self.rows[i]
        decoder = VideoDecoder(self.directory / row["path"], num_ffmpeg_threads=1, seek_mode="approximate")
        count = len(decoder)
        frames = decoder.get_frames_at([(2 * k + 1) * count // (2 * self.length) for k in range(self.length)]).data
        return self.transform(frames).transpose(0, 1)[None], self.classes.index(row["label"])


def make_transform(recipe, augment):
    """The transform of the frames of a clip (frames, channels, height, width), which all have the same parameters."""
    size, settings = recipe["input"]["size"], recipe.get("augment", {}) if augment else {}
    transforms = [v2.Resize(size, antialias=True)]
    if settings.get("flip"):
        transforms.append(v2.RandomHorizontalFlip(settings["flip"]))
    if "crop" in settings:
        transforms.append(v2.RandomResizedCrop(size, settings["crop"]["scale"], antialias=True))
    if "jitter" in settings:
        jitter = dict(settings["jitter"])
        probability = jitter.pop("probability")
        transforms.append(v2.RandomApply([v2.ColorJitter(**jitter)], probability))
    transforms += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(recipe["input"]["mean"], recipe["input"]["std"])]
    return v2.Compose(transforms)


def frames(arguments, recipe):
    from safetensors import safe_open

    clips = Clips(arguments.manifest, recipe["sampling"]["length"], make_transform(recipe, augment=False))
    differences = []
    with safe_open(arguments.file, "pt") as file:
        for row, (window, _) in zip(clips.rows, clips):
            differences.append((window - file.get_tensor(row["id"])).abs().mean().item())
    return {"clips": len(differences), "difference": max(differences)}


def epoch(arguments, recipe):
    clips = Clips(arguments.manifest, recipe["sampling"]["length"], make_transform(recipe, augment=True))
    torch.manual_seed(0)
    trainer = Trainer(recipe, len(clips.classes), arguments.channels_last)
    batch = arguments.batch or recipe["training"]["batch"]
    loader = DataLoader(
        clips, batch, shuffle=True, num_workers=arguments.workers, persistent_workers=arguments.workers > 0, prefetch_factor=2
    )
    losses = []
    with tempfile.TemporaryDirectory() as directory:
        ticks = [(time.perf_counter(), cpu_seconds())]
        for _ in range(arguments.epochs):
            trainer.train()
            values = [trainer.step(windows, labels) for windows, labels in loader]
            losses.append(statistics.mean(values))
            ticks.append((time.perf_counter(), cpu_seconds()))
            torch.save(trainer.net.state_dict(), f"{directory}/network.pth")
            torch.save({"network": trainer.net.state_dict(), "optimizer": trainer.optimizer.state_dict()}, f"{directory}/checkpoint.pth")
    span = lambda a, b: {key: (y - x) / (b - a) for key, x, y in zip(("wall", "cpu"), ticks[a], ticks[b])}
    later = span(1, len(ticks) - 1) if len(ticks) > 2 else None
    return {"first": span(0, 1), "later": later, "losses": losses, "threads": torch.get_num_threads()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["step", "frames", "epoch"])
    parser.add_argument("files", type=pathlib.Path, nargs="+", metavar="FILE")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, help="clips per batch [default: that of the recipe]")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()
    arguments.file, arguments.manifest = arguments.files[0], arguments.files[-1]
    torch.set_num_threads(arguments.threads)
    recipe = tomllib.loads((RECIPES / f"{arguments.recipe}.toml").read_text())
    print(json.dumps({"step": step, "frames": frames, "epoch": epoch}[arguments.command](arguments, recipe)))


if __name__ == "__main__":
    main()
