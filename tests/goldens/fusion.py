#!/usr/bin/env python3
"""Stacking of scikit-learn on the scores of three runs -> fixtures/fusion.json.

60 validation and 20 test clips. Single-label: softmax scores of 3 classes; logistic regression (C = 1, converged) on the logarithms of all
scores, clipped to [1e-6, 1]. Multi-label: sigmoid scores of 3 labels; one-vs-rest logistic regression on their log odds, clipped to
[1e-6, 1 - 1e-6]. Some scores are 0 or 1.
"""
import json
import pathlib

import numpy as np
import sklearn
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures"
random = np.random.default_rng(3)
model = LogisticRegression(C=1.0, tol=1e-10, max_iter=100_000)
VAL = 60

def rounded(values):
    # The values that a CSV file of 32-bit floats holds.
    return np.round(values, 6).astype(np.float32)

def lists(values):
    return [[float(f"{value:.6f}") for value in row] for row in values]

classes = random.integers(0, 3, 80)
truth = np.eye(3)[classes]
runs = [rounded(softmax(random.normal(size=(80, 3)) + strength * truth, axis=1)) for strength in (1.0, 2.0, 0.3)]
runs[0][5] = [0, 1, 0]
x = np.concatenate([np.log(np.clip(run.astype(np.float64), 1e-6, 1)) for run in runs], axis=1)
fitted = model.fit(x[:VAL], classes[:VAL])
single = {"labels": classes.tolist(), "scores": [lists(run) for run in runs], "probabilities": fitted.predict_proba(x[VAL:]).tolist()}

labels = np.stack([random.random(80) < p for p in (0.5, 0.3, 0.6)], axis=1).astype(int)
labels[labels.sum(axis=1) == 0, 0] = 1
runs = [rounded(expit(random.normal(size=(80, 3)) + strength * (labels - 0.5))) for strength in (1.0, 2.0, 0.3)]
runs[1][7] = [0, 1, 1]
clipped = [np.clip(run.astype(np.float64), 1e-6, 1 - 1e-6) for run in runs]
x = np.concatenate([np.log(p) - np.log1p(-p) for p in clipped], axis=1)
several = OneVsRestClassifier(model).fit(x[:VAL], labels[:VAL])
multi = {"labels": labels.tolist(), "scores": [lists(run) for run in runs], "probabilities": several.predict_proba(x[VAL:]).tolist()}
made_by = f"tests/goldens/fusion.py, scikit-learn {sklearn.__version__}"
(OUT / "fusion.json").write_text(json.dumps({"made_by": made_by, "val": VAL, "single": single, "multi": multi}) + "\n")
