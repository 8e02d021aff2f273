"""The stages that train: epochs and steps of classifiers (mlp, bilstm, attentive, transformer) and of networks (train-*), against PyTorch."""
import csv
import itertools
import json
import os
import statistics
import sys

from process import PEER, WORK, Process

# The recipe of pipelines/train of each stage.
RECIPES = {"train-r2plus1d": "r2plus1d", "train-resnet50": "resnet50", "train-epoch": "r2plus1d-tuned"}
# What a stage of a classifier measures.
CLASSIFIERS = {"mlp": "epoch", "bilstm": "step", "attentive": "step", "transformer": "step"}
STAGES = [*CLASSIFIERS, *RECIPES]
# Relative difference of the losses of the first steps, and mean absolute difference of the normalized pixels of a clip.
MAX_LOSS_DIFFERENCE = 1e-4
MAX_PIXEL_DIFFERENCE = 0.02
# Videos of an epoch, and clips per step.
TRAILERS, BATCH = 4, 4
PEER_PROGRAM = [sys.executable, PEER / "train.py"]


def run(bench, stage):
    if stage in CLASSIFIERS:
        return classifier(bench, stage)
    return epochs(bench, stage) if stage == "train-epoch" else steps(bench, stage)


def classifier(bench, stage):
    """An epoch or a training step on one thread: benches/STAGE.rs against benches/peer/STAGE.py."""
    unit = CLASSIFIERS[stage]
    executable = bench.executable(stage)
    commands = ([executable, "--threads", 1], [sys.executable, PEER / f"{stage}.py", "--threads", 1])
    rounds = [(*map(Process, commands), None) for _ in range(bench.arguments.rounds)]
    notes = {"cpu_ratio": ratio(rounds, lambda output: output[f"{unit}_cpu"])}
    if stage == "mlp":
        notes["val_accuracy"] = [min(run.output["val_accuracy"] for run in side) for side in list(zip(*rounds))[:2]]
    bench.record(stage, f"s/{unit}", rounds, lambda run: run.output[f"{unit}_wall"], higher=False, notes=notes)


def ratio(rounds, value):
    """The median of the peer's value relative to ours."""
    return statistics.median(value(peer.output) / value(ours.output) for ours, peer, _ in rounds)


def alternate(bench, ours, peer):
    """Runs both sides in each round, in alternating order."""
    rounds = []
    for number in range(bench.arguments.rounds):
        pair = {side: side() for side in ((ours, peer) if number % 2 == 0 else (peer, ours))}
        rounds.append((pair[ours], pair[peer], None))
    return rounds


def options(configuration):
    """The arguments of the peer for a configuration of fastest.json."""
    flags = ["--channels-last"] if configuration["channels_last"] else []
    for key in ("threads", "workers"):
        flags += [f"--{key}", configuration[key]] if key in configuration else []
    return flags


def steps(bench, stage):
    """Training steps on one batch from the same weights, on all cores."""
    recipe = ["--recipe", RECIPES[stage]]
    threads = ["--threads", os.cpu_count()]
    executable, start = bench.executable("train"), WORK / f"{stage}.safetensors"
    Process([executable, "write", start, *recipe])
    peer = [*PEER_PROGRAM, "step", start, *recipe, *threads, *options(bench.fastest[stage])]
    rounds = alternate(bench, lambda: Process([executable, "step", *recipe, *threads]), lambda: Process(peer))
    difference = 0.0
    for ours, theirs, _ in rounds:
        for a, b in zip(ours.output["losses"], theirs.output["losses"], strict=True):
            difference = max(difference, abs(a - b) / abs(b))
    if not difference <= MAX_LOSS_DIFFERENCE:
        raise SystemExit(f"bench: {stage}: the relative difference of the losses of the first steps is {difference:.2g}, more than {MAX_LOSS_DIFFERENCE}")
    notes = {
        "cpu_ratio": ratio(rounds, lambda output: output["step_cpu"]),
        "step_cpu": [statistics.median(run.output["step_cpu"] for run in side) for side in list(zip(*rounds))[:2]],
        "loss_difference": difference,
        "threads": os.cpu_count(),
        "peer_configuration": bench.fastest[stage],
    }
    bench.record(stage, "s/step", rounds, lambda run: run.output["step_wall"], higher=False, notes=notes)


def epoch_manifest(bench):
    """Writes a manifest of TRAILERS long videos and twice as many short clips, and returns its path and number of clips."""
    Process([sys.executable, PEER / "long.py", "make", WORK])
    Process([sys.executable, PEER / "long.py", "trailers", WORK, "--count", TRAILERS])
    source, _ = bench.manifest()
    with open(source, newline="") as file:
        short = [os.path.relpath(source.parent / clip["path"], WORK) for clip in csv.DictReader(file)]
    files = [f"trailer-{i}.mp4" for i in range(TRAILERS)] + short[: 2 * TRAILERS]
    path = WORK / "train-epoch.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "label", "split"])
        writer.writerows([i, name, "ab"[i % 2], "train"] for i, name in enumerate(files))
    return path, len(files)


def epochs(bench, stage):
    """Whole epochs on the same clips, from the start of decoding. The peer decodes in every epoch; kinoprobe decodes in the first epoch,
    before its first step, and reads the frame cache in later ones."""
    recipe = ["--recipe", RECIPES[stage], "--batch", BATCH]
    manifest, clips = epoch_manifest(bench)
    executable, inputs = bench.executable("train"), WORK / f"{stage}.safetensors"
    Process([executable, "frames", inputs, manifest, *recipe])
    difference = Process([*PEER_PROGRAM, "frames", inputs, manifest, *recipe]).output["difference"]
    if not difference <= MAX_PIXEL_DIFFERENCE:
        raise SystemExit(f"bench: {stage}: the inputs of the two sides differ by {difference:.3g} per normalized pixel")
    peer = [*PEER_PROGRAM, "epoch", manifest, *recipe, *options(bench.fastest[stage])]
    threads = ["--threads", os.cpu_count()]
    rounds = alternate(bench, lambda: Process([executable, "epoch", manifest, *recipe, *threads]), lambda: Process(peer))
    for part in ("first", "later"):
        notes = {
            "clips": clips,
            "cpu_ratio": ratio(rounds, lambda output: output[part]["cpu"]),
            "pixel_difference": difference,
            "losses": [rounds[0][side].output["losses"] for side in (0, 1)],
            "peer_configuration": bench.fastest[stage],
        }
        bench.record(f"{stage}-{part}", "s/epoch", rounds, lambda run: run.output[part]["wall"], higher=False, notes=notes)


def calibrate(bench, stage):
    """Returns the fastest configuration of the peer."""
    recipe = ["--recipe", RECIPES[stage]]
    executable, start = bench.executable("train"), WORK / f"{stage}.safetensors"
    if stage == "train-epoch":
        manifest, _ = epoch_manifest(bench)
        command = [*PEER_PROGRAM, "epoch", manifest, *recipe, "--batch", BATCH, "--epochs", 1]
        keys, values = ("channels_last", "threads", "workers"), ((False, True), range(1, os.cpu_count() + 1), (1, 2))
        measure = lambda output: output["first"]["wall"]
    else:
        Process([executable, "write", start, *recipe])
        command = [*PEER_PROGRAM, "step", start, *recipe]
        keys, values = ("channels_last",), ((False, True),)
        measure = lambda output: output["step_wall"]
    fastest = {}
    for value in itertools.product(*values):
        configuration = dict(zip(keys, value))
        seconds = [measure(Process(command + options(configuration)).output) for _ in range(bench.arguments.rounds)]
        bench.log(f"{stage}: {configuration}: {statistics.median(seconds):.2f} s")
        fastest[json.dumps(configuration)] = statistics.median(seconds)
    return json.loads(min(fastest, key=fastest.get))
