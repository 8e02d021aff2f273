"""Reference values of the multi-label metrics from scikit-learn on small seeded cases.

Writes fixtures/multi_label.json. The cases cover labels of no clip, labels of all clips, ties and empty predictions. Labels
of no clip are null and excluded from scikit-learn's averages over labels; all other values are unmodified. Metrics that
scikit-learn lacks (R-precision, top-k, calibration error, thresholds, bootstrap samples) are computed from their definitions. Needs numpy and
scikit-learn.
"""

import json
import pathlib
import warnings

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    auc,
    average_precision_score,
    classification_report,
    coverage_error,
    f1_score,
    hamming_loss,
    label_ranking_average_precision_score,
    label_ranking_loss,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "fixtures"


def averages(truth, predicted):
    present = np.flatnonzero(truth.any(0))
    found = {}
    for average in ("micro", "macro", "weighted", "samples"):
        labels = present if average == "macro" else None
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, predicted, labels=labels, average=average, zero_division=0
        )
        found[average] = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
    return found


def highest(scores, k):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    chosen = np.zeros(scores.shape, int)
    np.put_along_axis(chosen, order, 1, axis=1)
    return chosen


def calibration_error(truth, scores, bins=15):
    """Expected calibration error of each label by its definition, bin by bin; their mean."""
    errors = []
    for y, s in zip(truth.T, scores.T):
        error = 0.0
        for b in range(bins):
            inside = ((s > b / bins) | (b == 0)) & (s <= (b + 1) / bins)
            if inside.any():
                error += inside.mean() * abs(y[inside].mean() - s[inside].mean())
        errors.append(error)
    return float(np.mean(errors))


def tuned(truth, scores):
    """The score threshold with the highest F1 (ties: the highest score); 0.5 if fewer than five clips have the label."""
    thresholds = []
    for y, s in zip(truth.T, scores.T):
        candidates = np.unique(s)[::-1]
        f1 = [f1_score(y, s >= t, zero_division=0) for t in candidates]
        thresholds.append(float(candidates[int(np.argmax(f1))]) if y.sum() >= 5 else 0.5)
    return thresholds


def case(name, truth, scores=None, predicted=None):
    n, c = truth.shape
    labels = [f"label {k}" for k in range(c)]
    if scores is not None:
        scores = scores.astype(np.float32)
        wide = scores.astype(np.float64)
        predicted = (wide >= 0.5).astype(int)
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, average=None, zero_division=0)
    per_label = []
    for k in range(c):
        row = {"label": labels[k], "support": int(support[k])}
        numbers = {"precision": precision[k], "recall": recall[k], "f1": f1[k]}
        y = truth[:, k]
        ranked = {"average_precision": None, "pr_auc_trapezoid": None, "roc_auc": None}
        if scores is not None and y.any():
            s = wide[:, k]
            ranked["average_precision"] = float(average_precision_score(y, s))
            curve = precision_recall_curve(y, s)
            ranked["pr_auc_trapezoid"] = float(auc(curve[1], curve[0]))
            ranked["roc_auc"] = float(roc_auc_score(y, s)) if not y.all() else None
        row.update({key: float(value) if y.any() else None for key, value in numbers.items()})
        per_label.append(row | ranked)
    expected = {
        "n": n,
        "labels": labels,
        "per_label": per_label,
        **averages(truth, predicted),
        "exact_match": float(accuracy_score(truth, predicted)),
        "hamming_loss": float(hamming_loss(truth, predicted)),
        "binary_accuracy": float((truth == predicted).mean()),
    }
    if scores is None:
        expected["map"] = dict.fromkeys(("micro", "macro", "weighted", "samples"))
        expected["expected_calibration_error"] = None
        for key in ("ranking_loss", "coverage_error", "label_ranking_average_precision", "r_precision"):
            expected[key] = None
        expected["top_k_sweep"] = []
    else:
        present = truth.any(0)
        expected["map"] = {
            "micro": float(average_precision_score(truth, wide, average="micro")),
            "macro": float(average_precision_score(truth[:, present], wide[:, present], average="macro")),
            "weighted": float(average_precision_score(truth, wide, average="weighted")),
            "samples": float(average_precision_score(truth, wide, average="samples")),
        }
        expected["ranking_loss"] = float(label_ranking_loss(truth, wide))
        expected["coverage_error"] = float(coverage_error(truth, wide))
        expected["label_ranking_average_precision"] = float(label_ranking_average_precision_score(truth, wide))
        expected["expected_calibration_error"] = calibration_error(truth, wide)
        sizes = truth.sum(1)
        expected["r_precision"] = float(
            np.mean([(highest(wide[i : i + 1], sizes[i])[0] * truth[i]).sum() / sizes[i] for i in range(n)])
        )
        expected["top_k"] = {
            str(k): float((highest(wide, k) * truth).any(1).mean()) for k in (1, 3, 5) if k <= c
        }
        expected["top_k_sweep"] = [
            {"k": k, **averages(truth, highest(wide, k))} for k in range(1, min(10, c) + 1)
        ]
    found = {
        "name": name,
        "classes": labels,
        "truth": [np.flatnonzero(row).tolist() for row in truth],
        "predicted": [np.flatnonzero(row).tolist() for row in predicted],
        "scores": None if scores is None else [[float(s) for s in row] for row in scores],
        "expected": expected,
    }
    if scores is not None:
        thresholds = tuned(truth, wide)
        cut = (wide >= np.array(thresholds)).astype(int)
        found["thresholds"] = {
            "per_label": [{"label": label, "threshold": t, "tuned": bool(y.sum() >= 5)}
                          for label, t, y in zip(labels, thresholds, truth.T)],
            **averages(truth, cut),
            "exact_match": float(accuracy_score(truth, cut)),
            "hamming_loss": float(hamming_loss(truth, cut)),
        }
        # A bootstrap sample of the clips.
        drawn = np.random.default_rng(5).integers(0, n, n)
        present = truth[drawn].any(0)
        found["draw"] = {
            "rows": drawn.tolist(),
            "map": float(average_precision_score(truth[drawn][:, present], wide[drawn][:, present], average="macro")),
            "micro_f1": float(f1_score(truth[drawn], predicted[drawn], average="micro")),
        }
    if truth.any(0).all():
        found["report"] = classification_report(truth, predicted, target_names=labels, digits=4, zero_division=0)
    return found


def drawn_truth(rng, n, rates):
    truth = (rng.random((n, len(rates))) < rates).astype(int)
    truth[~truth.any(1), 0] = 1
    return truth


def drawn_scores(rng, truth, sharpness, bias=0.0):
    logits = rng.normal(size=truth.shape) + sharpness * (truth - 0.5) + bias
    return 1 / (1 + np.exp(-logits))


def main():
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    cases = []
    truth = drawn_truth(rng, 40, np.array([0.5, 0.3, 0.2, 0.4, 0.1, 0.25]))
    cases.append(case("six labels", truth, drawn_scores(rng, truth, 2.0)))
    truth = drawn_truth(rng, 60, np.linspace(0.4, 0.02, 14))
    cases.append(case("fourteen, shy", truth, drawn_scores(rng, truth, 1.5, -1.5)))
    truth = drawn_truth(rng, 30, np.array([0.6, 0.0, 0.3, 0.0, 0.2]))
    cases.append(case("two labels that no clip has", truth, drawn_scores(rng, truth, 1.0)))
    truth = drawn_truth(rng, 30, np.array([1.0, 0.3, 0.4, 0.0]))
    cases.append(case("one that all have, and ties", truth, np.round(drawn_scores(rng, truth, 1.0) * 4) / 4))
    truth = drawn_truth(rng, 12, np.array([0.7, 0.5, 0.3]))
    cases.append(case("all scores the same", truth, np.full(truth.shape, 0.3)))
    truth = np.ones((4, 3), int)
    cases.append(case("every label everywhere", truth, rng.random(truth.shape)))
    truth = drawn_truth(rng, 25, np.array([0.5, 0.5, 0.2, 0.1]))
    cases.append(case("sets without scores", truth, predicted=(rng.random(truth.shape) < 0.4).astype(int)))
    (FIXTURES / "multi_label.json").write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main()
