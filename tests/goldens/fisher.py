"""Writes principal components, a mixture of Gaussians and Fisher vectors of computed descriptors to fixtures/fisher.json.

The components and the Fisher vectors (equations 17 and 18 of Sánchez et al., "Image classification with the Fisher vector: theory and
practice", 2013, as sums over descriptors) are computed in f64 with NumPy. The mixture is that of scikit-learn's GaussianMixture, which
starts from the statistics of given clusters.
"""
import json
import pathlib

import numpy as np
import sklearn
from sklearn.mixture import GaussianMixture

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures/fisher.json"
ROWS, DIM, COMPONENTS, WORDS = 600, 8, 5, 3
MIN_POSTERIOR = 1e-4

# The test computes the same bytes and the same clusters.
row, column = np.ogrid[:ROWS, :DIM]
noise = (row * 7919 + column * 104729 + row * row * (column + 3)) % 97
data = (20 * (row % WORDS) * (column % 3 + 1) + noise + noise[:, :1] // (column + 1)) % 256
labels = np.where(np.arange(ROWS) % 10 == 0, 0, np.arange(ROWS) % WORDS)

mean = data.mean(0)
variances, vectors = np.linalg.eigh(np.cov((data - mean).T))
components = vectors[:, np.argsort(-variances)[:COMPONENTS]].T
components *= np.sign(components[np.arange(COMPONENTS), np.abs(components).argmax(1)])[:, None]
projected = (data - mean) @ components.T

clusters = [projected[labels == word] for word in range(WORDS)]
mixture = GaussianMixture(
    WORDS, covariance_type="diag", tol=1e-3, reg_covar=0, max_iter=100,
    weights_init=[len(cluster) / ROWS for cluster in clusters],
    means_init=[cluster.mean(0) for cluster in clusters],
    precisions_init=[1 / cluster.var(0) for cluster in clusters],
).fit(projected)
weights, means, deviations = mixture.weights_, mixture.means_, np.sqrt(mixture.covariances_)
assert mixture.converged_ and mixture.n_iter_ > 3 and deviations.min() > 1

z = (projected[:, None] - means) / deviations  # (rows, words, components)
likelihoods = weights * np.exp(-(z**2).sum(2) / 2) / deviations.prod(1)
posteriors = likelihoods / likelihoods.sum(1, keepdims=True)
assert (posteriors.max(1) < 0.9).sum() > 20, "some descriptors belong to several words"
posteriors[posteriors < MIN_POSTERIOR] = 0
of_means = posteriors[..., None] * z / np.sqrt(weights)[:, None]
of_deviations = posteriors[..., None] * (z**2 - 1) / np.sqrt(2 * weights)[:, None]
gradients = np.concatenate([of_means, of_deviations], 2)
frames = [gradients[:50].sum(0), gradients[50:].sum(0)]

golden = dict(
    sklearn=sklearn.__version__, mean=mean, components=components, weights=weights, means=means, deviations=deviations,
    fisher=[frame.ravel() for frame in frames],
)
rounded = lambda value: value if isinstance(value, str) else np.round(value, 7).tolist()
OUT.write_text(json.dumps({key: rounded(value) for key, value in golden.items()}).replace("], ", "],\n") + "\n")
print(mixture.n_iter_, "iterations;", weights, deviations, posteriors[:5])
