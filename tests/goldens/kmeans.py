"""Writes results of scikit-learn's k-means from given initial centers to fixtures/kmeans.safetensors.

The cases are overlapping clusters of bytes, with and without early convergence, and initial centers of which some are not
nearest to any row, so that empty clusters get the farthest rows.
"""
import pathlib

import numpy as np
from safetensors.numpy import save_file
from sklearn.cluster import KMeans

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "kmeans.safetensors"


def case(name, data, start, tolerance):
    model = KMeans(len(start), init=start, n_init=1, max_iter=300, tol=tolerance, algorithm="lloyd")
    labels = model.fit_predict(data.astype(np.float64))
    return {
        f"{name}.data": data,
        f"{name}.start": start.astype(np.float32),
        f"{name}.centroids": model.cluster_centers_.astype(np.float32),
        f"{name}.labels": labels.astype(np.uint32),
        f"{name}.inertia": np.array([model.inertia_]),
        f"{name}.iterations": np.array([model.n_iter_], np.uint32),
        f"{name}.tolerance": np.array([tolerance]),
    }


rng = np.random.default_rng(7)
points = rng.uniform(40, 200, (20, 24))
overlapping = np.clip(points[rng.integers(0, 20, 4000)] + rng.normal(0, 30, (4000, 24)), 0, 255).astype(np.uint8)
apart = np.clip(points[rng.integers(0, 6, 600)] + rng.normal(0, 8, (600, 24)), 0, 255).astype(np.uint8)
start = apart[:5].astype(np.float64)
empty = np.concatenate([start, np.full((2, 24), 255.0), np.full((1, 24), 254.0)])
tensors = {
    **case("overlapping", overlapping, overlapping[:16].astype(np.float64), 0.0),
    **case("stopped", overlapping, overlapping[100:132].astype(np.float64), 1e-3),
    **case("empty", apart, empty, 1e-4),
}
save_file(tensors, OUT)
print({key: value.tolist() for key, value in tensors.items() if key.endswith(("iterations", "inertia"))})
