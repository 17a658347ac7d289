"""The costs of moving a point that maps take: those of `pushforward.ot.costs`, without what `solve` alone takes."""

from pushforward.ot.costs import (
    CallableCost,
    Cosine,
    Cost,
    ElasticKOverlap,
    ElasticL1,
    ElasticSubspace,
    Euclidean,
    Geodesic,
    Manhattan,
    PNorm,
    PowerCost,
    SquaredEuclidean,
    StructuredCost,
    TranslationCost,
    resolve,
)

__all__ = [
    "CallableCost",
    "Cosine",
    "Cost",
    "ElasticKOverlap",
    "ElasticL1",
    "ElasticSubspace",
    "Euclidean",
    "Geodesic",
    "Manhattan",
    "PNorm",
    "PowerCost",
    "SquaredEuclidean",
    "StructuredCost",
    "TranslationCost",
    "resolve",
]
