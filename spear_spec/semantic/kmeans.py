"""k-means: fitting by scikit-learn, assignment here (it runs without scikit-learn)."""

from __future__ import annotations

import torch
from torch import Tensor

from spear_spec.errors import ConfigError, MissingExtraError


def nearest(features: Tensor, centroids: Tensor, chunk: int = 8192) -> Tensor:
    """Index of the nearest centroid (squared Euclidean distance) of each row of features [T, D]: int64 [T].

    The squared norm of the row is the same for every centroid and left out.
    """
    bias = centroids.square().sum(-1)
    rows = [(bias - 2 * part @ centroids.T).argmin(-1) for part in features.split(chunk)]
    return torch.cat(rows) if rows else torch.empty(0, dtype=torch.long, device=features.device)


def fit_kmeans(features: Tensor, clusters: int, *, seed: int = 0, epochs: int = 20) -> Tensor:
    """Centroids float32 [clusters, D] of rows [N, D], by scikit-learn's mini-batch k-means with k-means++ seeding
    (Sculley 2010), which handles millions of frames and is maintained for us.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ConfigError: fewer rows than clusters.
    """
    if len(features) < clusters:
        raise ConfigError(
            f"k-means needs at least as many frames as clusters: {len(features)} frames, {clusters} clusters"
        )
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError:
        raise MissingExtraError("fitting k-means needs scikit-learn: pip install 'spear-spec[train]'") from None
    batch = max(1024, 8 * clusters)
    model = MiniBatchKMeans(clusters, batch_size=batch, max_iter=epochs, n_init=3, random_state=seed)
    model.fit(features.float().cpu().numpy())
    return torch.from_numpy(model.cluster_centers_).float()
