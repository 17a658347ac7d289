"""What a result is judged by: maps by their truths and targets, samples by the data that they should look like."""

from pushforward.metrics.maps import (
    MapReport,
    cosine_similarity,
    exact_gap,
    gene_correlation,
    halves,
    judge_map,
    l2_uvp,
    marker_genes,
    matching,
    mean_shift,
    mmd,
    variance_ratio,
    wasserstein2,
)
from pushforward.metrics.samples import (
    SampleReport,
    class_histogram,
    density_coverage,
    frechet_distance,
    judge_samples,
    modes,
    precision_recall,
)

__all__ = [
    "MapReport",
    "SampleReport",
    "class_histogram",
    "cosine_similarity",
    "density_coverage",
    "exact_gap",
    "frechet_distance",
    "gene_correlation",
    "halves",
    "judge_map",
    "judge_samples",
    "l2_uvp",
    "marker_genes",
    "matching",
    "mean_shift",
    "mmd",
    "modes",
    "precision_recall",
    "variance_ratio",
    "wasserstein2",
]
