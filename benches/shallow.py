"""The stages logistic-*, svm-* and knn-*: fits (or the scores of nearest neighbors) on generated features, against scikit-learn with the
same standardization and its default settings."""
import statistics
import sys

import h5py
import numpy as np

from process import PEER, WORK, Process
from training import alternate, ratio

# Classifier, training clips, clips to score, and the step that is measured.
STAGES = {
    "logistic-6000": ("logistic", 6_000, 2_000, "fit"),
    "logistic-60000": ("logistic", 60_000, 2_000, "fit"),
    "svm-6000": ("svm", 6_000, 2_000, "fit"),
    "svm-60000": ("svm", 60_000, 2_000, "fit"),
    "knn-60000": ("knn", 60_000, 20_000, "predict"),
}
FEATURES, CLASSES = 1024, 15
# Probabilities of logistic regression differ by at most this from scikit-learn's at the tolerance 1e-8 (logistic-6000 only: it takes minutes).
MAX_DIFFERENCE = 1e-4
# Share of clips with the same most likely class, for classifiers whose optimum is not computed.
MIN_AGREEMENT = {"logistic": 0.8, "svm": 0.8, "knn": 0.999}


def data(count, test):
    """Correlated features of classes that overlap, as those of networks."""
    path = WORK / f"shallow-{count}-{test}.h5"
    if not path.exists():
        random = np.random.default_rng(0)
        basis = np.linalg.qr(random.standard_normal((FEATURES, FEATURES)))[0].astype(np.float32)
        scale = (1 / np.sqrt(np.arange(1, FEATURES + 1))).astype(np.float32)
        classes = random.integers(0, CLASSES, count + test)
        centers = random.standard_normal((CLASSES, FEATURES)).astype(np.float32) * 0.15
        noise = random.standard_normal((count + test, FEATURES), dtype=np.float32)
        features = ((noise + centers[classes]) * scale) @ basis
        partial = path.with_suffix(".partial")
        with h5py.File(partial, "w") as file:
            file["train"], file["test"] = features[:count], features[count:]
            file["targets"] = np.eye(CLASSES, dtype=np.float32)[classes[:count]]
        partial.rename(path)
    return path


def scores(path):
    with h5py.File(path) as file:
        return file["scores"][:]


def run(bench, stage):
    classifier, count, test, step = STAGES[stage]
    file = data(count, test)
    outs = WORK / "shallow-ours.h5", WORK / "shallow-peer.h5"
    ours = [bench.executable("shallow"), file, outs[0], "--classifier", classifier]
    peer = [sys.executable, PEER / "shallow.py", file, outs[1], "--classifier", classifier]
    rounds = alternate(bench, lambda: Process(ours), lambda: Process(peer))
    agreement = float((scores(outs[0]).argmax(1) == scores(outs[1]).argmax(1)).mean())
    if agreement < MIN_AGREEMENT[classifier]:
        raise SystemExit(f"bench: {stage}: only {agreement:.4f} of the clips have the same class")
    notes = {
        "agreement": agreement,
        "cpu_ratio": ratio(rounds, lambda output: output[f"{step}_cpu"]),
        "step_cpu": [statistics.median(side.output[f"{step}_cpu"] for side in sides) for sides in list(zip(*rounds))[:2]],
    }
    if stage == "logistic-6000":
        Process([*peer, "--exact"])
        exact = scores(outs[1])
        notes["difference"] = float(np.abs(scores(outs[0]) - exact).max())
        notes["iterations"] = rounds[0][1].output["iterations"]
        if notes["difference"] > MAX_DIFFERENCE:
            raise SystemExit(f"bench: {stage}: probabilities differ by {notes['difference']:.2g} from the optimum")
    bench.record(stage, f"s/{step}", rounds, lambda run: run.output[f"{step}_wall"], higher=False, notes=notes)
