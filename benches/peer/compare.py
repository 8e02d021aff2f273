"""The comparison of kinoprobe-compare with NumPy and SciPy: accuracy and macro F1 of runs and of their late fusions with BCa intervals, and
McNemar's tests with intervals of the differences. Writes neither plots nor tables. Prints one line of JSON."""
import csv
import itertools
import json
import sys

import numpy as np
from scipy.stats import binomtest, norm

RESAMPLES, PARTS = 2000, 1000


def read(path):
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    label, predicted, split = (header.index(name) for name in ("label", "predicted", "split"))
    columns = [i for i, name in enumerate(header) if name.startswith("score:")]
    number = {header[column].removeprefix("score:"): k for k, column in enumerate(columns)}
    scores = np.array([row[columns[0]:columns[-1] + 1] for row in rows], dtype=np.float32)
    truth, predicted = (np.array([number[row[i]] for row in rows]) for i in (label, predicted))
    return truth, predicted, scores, np.array([row[split] for row in rows])


def metrics(counts):
    """Accuracy and macro F1 of a confusion matrix (C, C) without absent classes."""
    sums = counts.sum(axis=0) + counts.sum(axis=1)
    return np.array([np.trace(counts) / counts.sum(), np.mean(2 * np.diag(counts) / np.maximum(sums, 1))])


def intervals(kinds, size, statistic):
    """BCa intervals of statistics of the number of clips of each kind."""
    random = np.random.default_rng(0)
    count = len(kinds)
    total = np.bincount(kinds, minlength=size)
    estimate = statistic(total)
    resampled = np.array([
        statistic(np.bincount(kinds[random.integers(0, count, count)], minlength=size)) for _ in range(RESAMPLES)
    ])
    block = -(-count // PARTS)
    jackknife = np.array([
        statistic(total - np.bincount(kinds[start:start + block], minlength=size)) for start in range(0, count, block)
    ])
    found = []
    for value, values, without in zip(estimate, resampled.T, jackknife.T):
        bias = norm.ppf((np.mean(values < value) + np.mean(values <= value)) / 2)
        centered = without.mean() - without
        acceleration = (centered**3).sum() / (6 * (centered**2).sum() ** 1.5)
        shifted = bias + norm.ppf([0.025, 0.975])
        found.append(np.quantile(values, norm.cdf(bias + shifted / (1 - acceleration * shifted))).tolist())
    return estimate.tolist(), found


runs = [read(path) for path in sys.argv[1:]]
truth, _, _, split = runs[0]
classes = runs[0][2].shape[1]
rows = {f"run {i}": (predicted, scores) for i, (_, predicted, scores, _) in enumerate(runs)}
fuse = lambda members: np.mean([scores for _, _, scores, _ in members], axis=0)
accuracy = lambda scores: np.mean(scores.argmax(axis=1)[split == "val"] == truth[split == "val"])
pair = max(itertools.combinations(runs, 2), key=lambda pair: accuracy(fuse(pair)))
for name, members in (("all", runs), ("pair", pair)):
    scores = fuse(members)
    rows[name] = (scores.argmax(axis=1), scores)
result = {"accuracy": [], "interval": [], "p": []}
for part in ("val", "test"):
    of_part = split == part
    for predicted, scores in rows.values():
        confusion = lambda counts: metrics(counts.reshape(classes, classes))
        values, found = intervals(truth[of_part] * classes + predicted[of_part], classes**2, confusion)
        result["accuracy"].append(values[0])
        result["interval"].append(found[0])
    correct = [predicted[of_part] == truth[of_part] for predicted, _ in rows.values()]
    for first, second in itertools.combinations(correct, 2):
        only = int((first & ~second).sum()), int((second & ~first).sum())
        result["p"].append(binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0)
        difference = lambda counts: np.array([(counts[2] - counts[1]) / counts.sum()])
        intervals(2 * first + second, 4, difference)
print(json.dumps(result))
