"""Golden values of the single-label metrics (scikit-learn) and of the significance tests (SciPy) on small seeded cases.

Writes fixtures/metrics.json and fixtures/significance.json. Requires numpy, scikit-learn and scipy.
"""

import json
import pathlib

import numpy as np
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "fixtures"


def calibration_error(scores, truth, bins=15):
    """Expected calibration error by its definition in the paper, bin by bin."""
    confidence, correct = scores.max(1), scores.argmax(1) == truth
    error = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


def case(name, classes, truth, predicted=None, scores=None):
    labels = list(range(len(classes)))
    truth = np.asarray(truth)
    if scores is not None:
        scores = scores.astype(np.float32)
        predicted = scores.argmax(1)
    predicted = np.asarray(predicted)
    averages = {}
    for average in ("macro", "micro", "weighted"):
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, predicted, labels=labels, average=average, zero_division=0
        )
        averages[average] = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=labels, average=None, zero_division=0
    )
    per_class = []
    for k, ((tn, fp), (fn, tp)) in enumerate(multilabel_confusion_matrix(truth, predicted, labels=labels)):
        per_class.append({
            "label": classes[k], "tp": int(tp), "fp": int(fp), "fn": int(fn), "tn": int(tn),
            "accuracy": float(accuracy_score(truth == k, predicted == k)),
            "precision": float(precision[k]), "recall": float(recall[k]), "f1": float(f1[k]),
            "support": int(support[k]),
        })
    expected = {
        "n": len(truth),
        "accuracy": float(accuracy_score(truth, predicted)),
        "labels": classes,
        "confusion": confusion_matrix(truth, predicted, labels=labels).tolist(),
        "per_class": per_class,
        **averages,
    }
    if scores is None:
        expected["top_k"] = {"1": expected["accuracy"]}
        expected["expected_calibration_error"] = None
    else:
        scores64 = scores.astype(np.float64)
        expected["top_k"] = {"1": expected["accuracy"]}
        for k in (3, 5):
            if k < len(classes):
                expected["top_k"][str(k)] = float(top_k_accuracy_score(truth, scores64, k=k, labels=labels))
            elif k == len(classes):
                expected["top_k"][str(k)] = 1.0
        expected["expected_calibration_error"] = float(calibration_error(scores64, truth))
    return {
        "name": name, "classes": classes, "truth": truth.tolist(), "predicted": predicted.tolist(),
        "scores": None if scores is None else [[float(s) for s in row] for row in scores], "expected": expected,
    }


def softmax_scores(rng, truth, classes, sharpness):
    logits = rng.normal(size=(len(truth), classes))
    logits[np.arange(len(truth)), truth] += 1.0
    exponent = np.exp(sharpness * logits)
    return exponent / exponent.sum(1, keepdims=True)


# Clips, classes, probability of a correct prediction, clips per group (1: no groups).
CASES = [(40, 2, 0.7, 1), (150, 2, 0.9, 1), (400, 4, 0.35, 1), (24, 5, 0.4, 1), (60, 3, 0.6, 3)]


def interval(rng, n, classes, skill, size):
    """BCa intervals of accuracy and macro F1 with 50,000 resamples of clips, or of groups of `size` clips."""
    truth = rng.integers(0, classes, n)
    predicted = np.where(rng.random(n) < skill, truth, rng.integers(0, classes, n))
    groups = np.arange(n).reshape(-1, size)

    def accuracy(units, axis=-1):
        rows = groups[units].reshape(*units.shape[:-1], -1)
        return (truth == predicted)[rows].mean(axis)

    def macro_f1(units, axis=-1):
        rows = groups[units].reshape(*units.shape[:-1], -1)
        scores = []
        for k in range(classes):
            t, p = truth[rows] == k, predicted[rows] == k
            total = t.sum(axis) + p.sum(axis)
            scores.append(np.where(total > 0, 2 * (t & p).sum(axis) / np.maximum(total, 1), np.nan))
        return np.nanmean(scores, axis=0)

    result = {"truth": truth.tolist(), "predicted": predicted.tolist(), "group_size": size}
    for name, statistic in [("accuracy", accuracy), ("macro_f1", macro_f1)]:
        drawn = bootstrap((np.arange(len(groups)),), statistic, n_resamples=50_000, method="BCa", vectorized=True,
                          batch=1000, rng=np.random.default_rng(1))
        # With 2000 resamples, the standard deviation of a bound is about a tenth of the standard error.
        result[name] = {
            "interval": [float(bound) for bound in drawn.confidence_interval],
            "tolerance": max(0.25 * float(drawn.standard_error), 1.0 / n + 1e-9 if name == "accuracy" else 0.0),
        }
    return result


# Statistics of n values: near the limit of a fraction, skewed, and biased.
DISTRIBUTIONS = [
    (24, lambda rng, n: (rng.random(n) < 0.85).astype(float), np.mean),
    (30, lambda rng, n: rng.exponential(size=n) ** 2, np.mean),
    (20, lambda rng, n: rng.normal(size=n), np.var),
]


def bca(rng, n, draw, statistic):
    """The BCa interval of a given bootstrap distribution."""
    data = (draw(rng, n),)
    drawn = bootstrap(data, statistic, n_resamples=499, method="BCa", rng=np.random.default_rng(2))
    return {
        "estimate": float(statistic(data[0])),
        "resampled": sorted(drawn.bootstrap_distribution.tolist()),
        "jackknife": [float(statistic(np.delete(data[0], i))) for i in range(n)],
        "interval": [float(bound) for bound in drawn.confidence_interval],
    }


def main():
    rng = np.random.default_rng(0)
    names = lambda n: [f"class {i:02}" for i in range(n)]
    cases = []
    truth = rng.integers(0, 7, 60)
    cases.append(case("seven classes with scores", names(7), truth, scores=softmax_scores(rng, truth, 7, 1.0)))
    truth = rng.integers(0, 15, 90)
    cases.append(case("fifteen overconfident", names(15), truth, scores=softmax_scores(rng, truth, 15, 4.0)))
    truth = rng.choice([0, 2, 3], 40)
    cases.append(case("a class absent from the truth", names(5), truth, scores=softmax_scores(rng, truth, 5, 2.0)))
    truth = rng.integers(0, 4, 40)
    cases.append(case("a class never predicted", names(4), truth, predicted=np.where(truth == 2, 1, truth)))
    cases.append(case("absent and never predicted", names(6), [0, 0, 1, 1, 1, 4], predicted=[0, 1, 1, 1, 0, 0]))
    cases.append(case("two classes", names(2), [0, 0, 0, 1, 1], predicted=[0, 1, 0, 1, 1]))
    cases.append(case("all wrong", names(3), [0, 1, 2, 0], predicted=[1, 2, 0, 2]))
    cases.append(case("one class only", names(1), [0, 0], predicted=[0, 0]))
    (FIXTURES / "metrics.json").write_text(json.dumps(cases) + "\n")

    pairs = [(0, 0), (1, 0), (0, 6), (5, 5), (3, 11), (10, 25), (59, 6), (200, 150), (1203, 1100), (4000, 3500), (0, 900)]
    mcnemar = [(b, c, float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0) for b, c in pairs]
    # Holm (1979) by hand: p-values in ascending order times the number of remaining hypotheses, made monotonic.
    holm = [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ]
    intervals = [interval(rng, n, classes, skill, size) for n, classes, skill, size in CASES]
    significance = {"mcnemar": mcnemar, "holm": holm, "bca": [bca(rng, *case) for case in DISTRIBUTIONS],
                    "bootstrap": intervals}
    (FIXTURES / "significance.json").write_text(json.dumps(significance) + "\n")


if __name__ == "__main__":
    main()
