"""The stage compare-100000: the comparison of three runs over 100,000 clips, against the same statistics in NumPy and SciPy."""
import json
import sys

import numpy as np

from process import PEER, WORK, Process
from training import alternate

STAGE = "compare-100000"
CLIPS, CLASSES = 100_000, 15
# Probability of the true class grows with the strength of a run.
STRENGTHS = [1.5, 1.8, 1.7]
# Goal: wall seconds on two idle cores.
MAX_SECONDS = 20
# The intervals are of different resamples.
MAX_INTERVAL_DIFFERENCE = 0.15


def predictions():
    """The files with the predictions of each run, one fifth of the clips in the split val."""
    random = np.random.default_rng(0)
    truth = random.integers(0, CLASSES, CLIPS)
    names = [f"class{c}" for c in range(CLASSES)]
    paths = []
    for run, strength in enumerate(STRENGTHS):
        logits = random.standard_normal((CLIPS, CLASSES), dtype=np.float32)
        logits[np.arange(CLIPS), truth] += strength
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        path = WORK / f"compare-{run}.csv"
        with open(path, "w") as file:
            file.write("id,split,label,predicted," + ",".join(f"score:{name}" for name in names) + "\n")
            for i, (label, row) in enumerate(zip(truth, scores)):
                split = "test" if i % 5 else "val"
                file.write(f"clip{i:06},{split},{names[label]},{names[row.argmax()]}," + ",".join(map(str, row)) + "\n")
        paths.append(path)
    return paths


def run(bench, stage):
    files = predictions()
    runs = [WORK / f"compare-run{number}" for number in range(len(files))]
    for file, directory in zip(files, runs):
        Process([bench.binaries / "kinoprobe-evaluate", "--predictions", file, "--out", directory])
    out = WORK / "compare"
    ours = [bench.binaries / "kinoprobe-compare", *runs, "--out", out, "--no-early-fusion"]
    rounds = alternate(bench, lambda: Process(ours), lambda: Process([sys.executable, PEER / "compare.py", *files]))
    comparison = json.loads((out / "compare.json").read_text())
    # The peer has no learned fusion.
    rows = [row for row in comparison["rows"] if row["kind"] != "learned-fusion"]
    parts = [row["parts"][part] for part in ("val", "test") for row in rows]
    peer = rounds[0][1].output
    if not np.allclose([part["accuracy"] for part in parts], peer["accuracy"], rtol=0, atol=1e-4):
        raise SystemExit(f"bench: {stage}: the accuracies of the two sides differ")
    ours, theirs = np.array([part["interval"]["accuracy"] for part in parts]), np.array(peer["interval"])
    difference = float(np.abs((ours - theirs) / np.diff(theirs, axis=1)).max())
    if difference > MAX_INTERVAL_DIFFERENCE:
        raise SystemExit(f"bench: {stage}: intervals differ by {difference:.2f} of their width")
    bench.record(stage, "s", rounds, lambda run: run.wall, higher=False, notes={"clips": CLIPS, "difference": difference})
    if bench.results[-1]["ours"] > MAX_SECONDS:
        bench.log(f"{stage}: more than the goal of {MAX_SECONDS} s")
