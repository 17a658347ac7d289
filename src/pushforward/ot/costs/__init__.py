"""Costs of transport: by name, as objects, as functions; of two sets of points, of a pixel grid."""

from pushforward.ot.costs.classes import (
    CallableCost,
    Cosine,
    Euclidean,
    Geodesic,
    Manhattan,
    PNorm,
    PowerCost,
    SquaredEuclidean,
)
from pushforward.ot.costs.displacements import Cost, StructuredCost, TranslationCost
from pushforward.ot.costs.elastic import ElasticKOverlap, ElasticL1, ElasticSubspace
from pushforward.ot.costs.functions import check_pair_by_pair
from pushforward.ot.costs.inputs import GridCost, PointCost
from pushforward.ot.costs.names import GroundCost, pairwise_cost, resolve

__all__ = [
    "CallableCost",
    "Cosine",
    "Cost",
    "ElasticKOverlap",
    "ElasticL1",
    "ElasticSubspace",
    "Euclidean",
    "Geodesic",
    "GridCost",
    "GroundCost",
    "Manhattan",
    "PNorm",
    "PointCost",
    "PowerCost",
    "SquaredEuclidean",
    "StructuredCost",
    "TranslationCost",
    "check_pair_by_pair",
    "pairwise_cost",
    "resolve",
]
