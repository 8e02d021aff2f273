#!/usr/bin/env python3
"""Baselines of scikit-learn on a small data set -> fixtures/baselines.safetensors.

60 training and 20 test clips of 6 features (the last constant) and 4 classes. StandardScaler, then logistic regression
(C = 1, converged), a linear SVM (C = 1, converged; softmax of its decision values) and Gaussian naive Bayes, each also with balanced
class weights, which are stored too, 5 nearest neighbors (also with the cosine distance) and the class prior, each fitted to the standardized features. For
several labels, every clip also has the next class: one-vs-rest logistic regression, SVM (σ of its decision values) and naive Bayes,
and 5 nearest neighbors.
"""
import pathlib

import numpy as np
import sklearn
from scipy.special import expit, softmax
from safetensors.numpy import save_file
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures"
random = np.random.default_rng(11)
classes = random.integers(0, 4, 80)
centers = random.normal(0, 1.2, (4, 6))
features = ((centers[classes] + random.normal(size=(80, 6))) * [1, 5, 0.1, 1, 20, 0] + [0, 3, 0, -2, 100, 0.7]).astype(np.float32)
train, test = slice(0, 60), slice(60, 80)

scaler = StandardScaler().fit(features[train].astype(np.float64))
x, y = scaler.transform(features.astype(np.float64)), classes
fitted = {
    "logistic": LogisticRegression(C=1.0, tol=1e-10, max_iter=100_000),
    "svm": LinearSVC(C=1.0, tol=1e-12, max_iter=1_000_000, dual=False),
    "logistic.balanced": LogisticRegression(C=1.0, tol=1e-10, max_iter=100_000, class_weight="balanced"),
    "svm.balanced": LinearSVC(C=1.0, tol=1e-12, max_iter=1_000_000, dual=False, class_weight="balanced"),
    "bayes": GaussianNB(var_smoothing=1e-9),
    "knn": KNeighborsClassifier(5, algorithm="brute"),
    "knn.cosine": KNeighborsClassifier(5, algorithm="brute", metric="cosine"),
    "constant": DummyClassifier(strategy="prior"),
}
tensors = {"features": features, "classes": classes.astype(np.float32), "mean": scaler.mean_, "deviation": scaler.scale_}
for name, model in fitted.items():
    model.fit(x[train], y[train])
    scores = softmax(model.decision_function(x[test]), axis=1) if "svm" in name else model.predict_proba(x[test])
    tensors[f"{name}.probabilities"] = np.ascontiguousarray(scores)
balanced = GaussianNB(var_smoothing=1e-9).fit(x[train], y[train], compute_sample_weight("balanced", y[train]))
tensors["bayes.balanced.probabilities"] = np.ascontiguousarray(balanced.predict_proba(x[test]))
tensors["class_weight"] = compute_class_weight("balanced", classes=np.arange(4), y=y[train])
several = np.eye(4, dtype=int)[classes] | np.eye(4, dtype=int)[(classes + 1) % 4]
for name in "logistic", "logistic.balanced", "svm", "svm.balanced", "bayes":
    chosen = OneVsRestClassifier(fitted[name]).fit(x[train], several[train])
    scores = expit(chosen.decision_function(x[test])) if "svm" in name else chosen.predict_proba(x[test])
    tensors[f"several.{name}.probabilities"] = np.ascontiguousarray(scores)
binary = [(label, compute_sample_weight("balanced", label)) for label in several[train].T]
binary = [GaussianNB(var_smoothing=1e-9).fit(x[train], label, weights).predict_proba(x[test])[:, 1] for label, weights in binary]
tensors["several.bayes.balanced.probabilities"] = np.ascontiguousarray(np.stack(binary, axis=1))
weights = [compute_class_weight("balanced", classes=np.arange(2), y=label) for label in several[train].T]
tensors["several.class_weight"] = np.stack(weights)
nearest = KNeighborsClassifier(5, algorithm="brute").fit(x[train], several[train]).predict_proba(x[test])
tensors["several.knn.probabilities"] = np.ascontiguousarray(np.stack([label[:, 1] for label in nearest], axis=1))
save_file(tensors, OUT / "baselines.safetensors", {"made_by": f"tests/goldens/baselines.py, scikit-learn {sklearn.__version__}"})
