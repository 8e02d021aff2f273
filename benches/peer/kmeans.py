"""The k-means of benches/kmeans.rs in scikit-learn, on raw bytes (rows of 128 columns). Prints one line of JSON."""
import argparse
import json
import time

import numpy as np
from sklearn.cluster import KMeans

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--words", type=int, default=128)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--max-iterations", type=int, default=300)
arguments = parser.parse_args()
data = np.fromfile(arguments.file, np.uint8).reshape(-1, 128).astype(np.float32)
start = time.perf_counter()
model = KMeans(arguments.words, n_init=1, max_iter=arguments.max_iterations, random_state=arguments.seed).fit(data)
seconds = time.perf_counter() - start
result = {"seconds": seconds, "inertia": float(model.inertia_), "iterations": model.n_iter_, "rows": len(data)}
print(json.dumps(result))
