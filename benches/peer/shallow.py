"""The classifiers of benches/shallow.rs in scikit-learn, on the same standardized features. Prints one line of JSON."""
import argparse
import json
import time

import h5py
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("out")
parser.add_argument("--classifier", choices=["logistic", "svm", "knn"], required=True)
parser.add_argument("--exact", action="store_true", help="fit in f64 to a tolerance at which the scores are a reference")
arguments = parser.parse_args()
with h5py.File(arguments.file) as file:
    train, targets, test = (file[name][:] for name in ("train", "targets", "test"))
if arguments.exact:
    train, test = train.astype(np.float64), test.astype(np.float64)
exact = {"tol": 1e-8, "max_iter": 10_000} if arguments.exact else {}
classifier = {
    "logistic": lambda: LogisticRegression(**exact),
    "svm": lambda: LinearSVC(C=0.001, **exact),  # with C = 1, a fit to 6000 clips takes more than 8 minutes
    "knn": lambda: KNeighborsClassifier(5, algorithm="brute"),
}[arguments.classifier]()
wall, cpu = time.perf_counter(), time.process_time()
scaler = StandardScaler().fit(train)
classifier.fit(scaler.transform(train), targets.argmax(axis=1))
fit_wall, fit_cpu = time.perf_counter() - wall, time.process_time() - cpu
wall, cpu = time.perf_counter(), time.process_time()
features = scaler.transform(test)
scores = classifier.decision_function(features) if arguments.classifier == "svm" else classifier.predict_proba(features)
predict_wall, predict_cpu = time.perf_counter() - wall, time.process_time() - cpu
with h5py.File(arguments.out, "w") as file:
    file["scores"] = scores.astype(np.float32)
iterations = getattr(classifier, "n_iter_", None)
times = {"fit_wall": fit_wall, "fit_cpu": fit_cpu, "predict_wall": predict_wall, "predict_cpu": predict_cpu}
print(json.dumps(times | {"iterations": None if iterations is None else int(np.max(iterations))}))
