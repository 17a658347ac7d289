"""Transport maps: learn what carries one distribution to another, and use it on points never seen."""

from pushforward.maps.entropic import EntropicMap
from pushforward.maps.gap import monge_gap
from pushforward.maps.icnn import ICNNMap
from pushforward.maps.linear import LinearMap, bures_map
from pushforward.maps.monge import MongeMap
from pushforward.maps.progressive import ProgressiveMap
from pushforward.maps.saved import load_map

__all__ = [
    "EntropicMap",
    "ICNNMap",
    "LinearMap",
    "MongeMap",
    "ProgressiveMap",
    "bures_map",
    "load_map",
    "monge_gap",
]
