"""Golden values of the likely label errors (cleanlab) on small seeded cases.

Writes fixtures/label_errors.json. Requires numpy and cleanlab.
"""

import json
import pathlib

import numpy as np
from cleanlab.count import compute_confident_joint

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "fixtures"


def off_diagonals(given, scores):
    """Rows and suggested classes off the diagonal of the confident joint."""
    joint, rows = compute_confident_joint(given, scores, calibrate=False, return_indices_of_off_diagonals=True)
    assert joint.sum() - np.trace(joint) == len(rows)
    thresholds = np.array([scores[given == k, k].mean() for k in range(scores.shape[1])])
    confident = np.where(scores >= thresholds - 1e-6, scores, -1)
    return sorted([int(row), int(confident[row].argmax())] for row in rows)


def case(name, classes, n, flipped, sharpness, seed):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    given = np.where(rng.random(n) < flipped, rng.integers(classes, size=n), truth)
    given[:classes] = np.arange(classes)  # every class has a clip
    logits = rng.normal(size=(n, classes)) + sharpness * np.eye(classes)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = np.round(scores, 5).astype(np.float32)
    return {"name": name, "given": given.tolist(), "scores": scores.astype(float).tolist(), "errors": off_diagonals(given, scores)}


cases = [
    case("clear", 3, 60, 0.15, 4.0, 0),
    case("noisy", 5, 80, 0.4, 1.5, 1),
    case("weak", 4, 50, 0.2, 0.3, 2),
    case("binary", 2, 40, 0.2, 2.0, 3),
]
(FIXTURES / "label_errors.json").write_text(json.dumps(cases, indent=None, separators=(",", ":")) + "\n")
for entry in cases:
    print(entry["name"], len(entry["errors"]))
