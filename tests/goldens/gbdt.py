#!/usr/bin/env python3
"""Accuracy of scikit-learn's histogram gradient boosting -> fixtures/gbdt.safetensors.

1000 clips of 10 features (rounded to 1/64, so that the file is small) and 4 classes of two clusters each: 400 for training and 600 for
the test. `HistGradientBoostingClassifier` with 100 trees per class and 31 leaves without early stopping: one-vs-rest (the algorithm
of kinoprobe), and with the cross-entropy of all classes.
"""
import pathlib

import numpy as np
import sklearn
from safetensors.numpy import save_file
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.multiclass import OneVsRestClassifier

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures"
x, y = make_classification(
    1000, 10, n_informative=6, n_redundant=2, n_classes=4, n_clusters_per_class=2, class_sep=1.2, random_state=1
)
x = np.clip(np.round(x * 64), -32768, 32767) / 64
train, test = slice(0, 400), slice(400, 1000)
settings = dict(max_iter=100, learning_rate=0.1, max_leaf_nodes=31, min_samples_leaf=1, l2_regularization=1.0, early_stopping=False)
booster = HistGradientBoostingClassifier(**settings)
multinomial = booster.fit(x[train], y[train]).predict_proba(x[test])
logits = OneVsRestClassifier(booster).fit(x[train], y[train])
logits = np.stack([binary.decision_function(x[test]) for binary in logits.estimators_], axis=1)
accuracy = [np.mean(scores.argmax(axis=1) == y[test]) for scores in (logits, multinomial)]
print("one-vs-rest, multinomial:", accuracy)
tensors = {"features": x.astype(np.float32), "classes": y.astype(np.float32), "accuracy": np.array(accuracy)}
save_file(tensors, OUT / "gbdt.safetensors", {"made_by": f"tests/goldens/gbdt.py, scikit-learn {sklearn.__version__}"})
