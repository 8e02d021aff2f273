"""The stage sift-dense: SIFT descriptors of a dense grid on frames of the clips, without decoding, against OpenCV-Python's SIFT.compute
for the same keypoints, with two threads on each side."""
import csv
import shutil
import statistics
import sys

import numpy as np

from process import PEER, WORK, Process
from training import alternate, ratio

STAGE = "sift-dense"
MIN_COSINE = 0.999
FRAMES_PER_CLIP = 4
# Images in parallel, or threads of OpenCV for each image.
CONFIGURATIONS = [{"workers": 2, "threads": 1}, {"workers": 1, "threads": 2}]


def images(bench):
    """A directory with gray frames of the clips."""
    directory = WORK / "images"
    if not directory.exists():
        import cv2

        manifest, _ = bench.manifest()
        partial = WORK / "images.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with open(manifest, newline="") as file:
            for number, clip in enumerate(csv.DictReader(file)):
                capture = cv2.VideoCapture(str(manifest.parent / clip["path"]))
                for frame in range(FRAMES_PER_CLIP):
                    image = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY)
                    cv2.imwrite(str(partial / f"{number:03}-{frame}.png"), image)
        partial.rename(directory)
    return directory


def peer(directory, configuration):
    command = [sys.executable, PEER / "dense_sift.py", directory, "--out", WORK / "dense_sift.npy"]
    return Process(command + [part for key, value in configuration.items() for part in (f"--{key}", value)])


def run(bench):
    directory, executable, configuration = images(bench), bench.executable("dense_sift"), bench.fastest[STAGE]
    out = WORK / "dense_sift.u8"
    ours = [executable, directory, "--threads", 2, "--out", out]
    rounds = alternate(bench, lambda: Process(ours), lambda: peer(directory, configuration))
    cosine = agreement(out, WORK / "dense_sift.npy")
    rounds = [(own, theirs, cosine) for own, theirs, _ in rounds]
    notes = {"items": rounds[0][0].output["images"], "rows": rounds[0][0].output["rows"], "peer_configuration": configuration,
             "cpu_ratio": ratio(rounds, lambda output: output["cpu"])}
    bench.record(STAGE, "images/s", rounds, lambda run: run.output["images"] / run.output["seconds"], higher=True, notes=notes)


def agreement(ours, peer):
    """The mean cosine similarity of the descriptors of the two sides, most of which are equal. (In flat regions, gradients and thus
    descriptors are rounding errors.)"""
    # Our last two bytes are the position.
    ours, peer = np.fromfile(ours, np.uint8).reshape(-1, 130)[:, :128].astype(np.float32), np.load(peer).astype(np.float32)
    if ours.shape != peer.shape:
        raise SystemExit(f"bench: {STAGE}: kinoprobe's descriptors have shape {ours.shape}, the peer's {peer.shape}")
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(peer, axis=1)
    mean = float(np.where(norms > 0, (ours * peer).sum(axis=1) / np.maximum(norms, 1), 1.0).mean())
    if mean < MIN_COSINE:
        raise SystemExit(f"bench: {STAGE}: the descriptors of the two sides differ (cosine similarity {mean:.5f})")
    return mean


def calibrate(bench):
    """The fastest configuration of the peer."""
    directory = images(bench)
    seconds = [statistics.median(peer(directory, configuration).output["seconds"] for _ in range(bench.arguments.rounds))
               for configuration in CONFIGURATIONS]
    for configuration, median in zip(CONFIGURATIONS, seconds):
        bench.log(f"{STAGE}: {configuration}: {median:.2f} s")
    return CONFIGURATIONS[seconds.index(min(seconds))]
