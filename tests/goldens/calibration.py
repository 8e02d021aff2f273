"""Calibration of scores by scikit-learn on small seeded cases.

Writes fixtures/calibration.json: for each case, scores and truth of validation clips, other scores, and the latter after calibration.
Temperature and Platt scaling are minimized by SciPy to 1e-10, starting from scikit-learn's parameters, which must agree to 1e-3.
Needs numpy, scipy and scikit-learn.
"""

import json
import pathlib

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logsumexp, softmax
from sklearn.calibration import _sigmoid_calibration, _TemperatureScaling
from sklearn.isotonic import IsotonicRegression

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "fixtures"


def rounded(scores):
    """The scores as the f32 values that the program reads."""
    return scores.astype(np.float32).astype(np.float64)


def case(name, method, scores, truth, other, calibrated, **parameters):
    return {"name": name, "method": method, "scores": scores.tolist(), "truth": [np.atleast_1d(t).tolist() for t in truth],
            "other": other.tolist(), "calibrated": calibrated.tolist(), **parameters}


def temperature(name, probabilities, truth, other):
    logits = np.log(probabilities + 1e-12)

    def loss(log_beta):
        return -log_softmax(np.exp(log_beta) * logits, axis=1)[np.arange(len(truth)), truth].mean()

    theirs = _TemperatureScaling().fit(probabilities, truth).beta_
    found = minimize_scalar(loss, bounds=(-10, 10), method="bounded", options={"xatol": 1e-10})
    assert abs(np.exp(found.x) / theirs - 1) < 1e-3
    calibrated = softmax(np.exp(found.x) * np.log(other + 1e-12), axis=1)
    return case(name, "temperature", probabilities, truth, other, calibrated, temperature=float(np.exp(-found.x)))


def platt(name, scores, truth, other):
    floor = 2.0**-24
    slopes, intercepts, columns = [], [], []
    for p, y, q in zip(scores.T, truth.T, other.T):
        z, w = (np.log(s + floor) - np.log(1 - s + floor) for s in (p, q))
        a, b = _sigmoid_calibration(z, y)
        positives, negatives = (y == 1).sum(), (y == 0).sum()
        target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

        def loss(x):
            u = x[0] * z + x[1]
            return np.logaddexp(0, u).sum() - (target * u).sum()

        def gradient(x):
            error = expit(x[0] * z + x[1]) - target
            return np.array([(error * z).sum(), error.sum()])

        found = minimize(loss, [-a, -b], jac=gradient, method="BFGS", options={"gtol": 1e-9}).x
        assert np.abs(found - [-a, -b]).max() < 1e-3 * max(1, np.abs(found).max()), (name, found, a, b)
        slopes.append(float(found[0]))
        intercepts.append(float(found[1]))
        columns.append(expit(found[0] * w + found[1]))
    sets = [np.flatnonzero(row) for row in truth]
    return case(name, "platt", scores, sets, other, np.stack(columns, axis=1), slope=slopes, intercept=intercepts)


def isotonic(name, scores, truth, other):
    columns = [IsotonicRegression(out_of_bounds="clip").fit(p, y).predict(q) for p, y, q in zip(scores.T, truth.T, other.T)]
    return case(name, "isotonic", scores, [np.flatnonzero(row) for row in truth], other, np.stack(columns, axis=1))


def main():
    rng = np.random.default_rng(3)

    def classes(n, count, sharpness):
        truth = rng.integers(0, count, n)
        logits = rng.normal(size=(n, count))
        logits[np.arange(n), truth] += 1.0
        return rounded(np.exp(sharpness * logits - logsumexp(sharpness * logits, axis=1, keepdims=True))), truth

    def labels(n, count, sharpness, bias):
        truth = (rng.random((n, count)) < np.linspace(0.5, 0.1, count)).astype(int)
        truth[~truth.any(1), 0] = 1
        return rounded(expit(sharpness * (rng.normal(size=truth.shape) + 2 * truth - 1) + bias)), truth

    cases = []
    for name, n, count, sharpness in [("overconfident", 80, 5, 4.0), ("underconfident", 60, 3, 0.3), ("saturated", 50, 4, 40.0)]:
        cases.append(temperature(name, *classes(n, count, sharpness), classes(20, count, sharpness)[0]))
    neighbors, truth = classes(60, 4, 1.0)
    cases.append(temperature("votes of five neighbors", rounded(rng.multinomial(5, neighbors / neighbors.sum(1, keepdims=True)) / 5), truth,
                             rounded(rng.multinomial(5, np.full(4, 0.25), 20) / 5)))
    for name, n, count, sharpness, bias in [("four labels", 120, 4, 1.0, -1.0), ("overconfident labels", 150, 3, 6.0, 2.0)]:
        scores, truth = labels(n, count, sharpness, bias)
        other = labels(25, count, sharpness, bias)[0]
        other[0], other[1] = 0.0, 1.0
        cases.append(platt(name, scores, truth, other))
        cases.append(isotonic(name, scores, truth, other))
    scores, truth = labels(100, 3, 1.0, 0.0)
    cases.append(isotonic("ties", rounded(np.round(scores * 8) / 8), truth, rounded(np.linspace(0, 1, 33)[:, None].repeat(3, 1))))
    worse = rounded(1 - scores)
    cases.append(isotonic("worse than chance", worse, truth, rounded(np.linspace(0, 1, 9)[:, None].repeat(3, 1))))
    (FIXTURES / "calibration.json").write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main()
