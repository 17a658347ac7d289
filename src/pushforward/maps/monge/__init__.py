"""`MongeMap`: its networks, the stages that it is trained in, and what decides which map is kept."""

from pushforward.maps.monge.monge import MongeMap

__all__ = ["MongeMap"]
