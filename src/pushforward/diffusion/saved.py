"""Denoisers on disk: their structure as JSON, their numbers as safetensors. Nothing in these files can run code.

    folder/
      NAME.json           process, kind of prediction, the network's structure, and what the caller adds
      NAME.safetensors    the network's parameters, and the process's tensors

network             how it is rebuilt
of `networks`       from its `config`
of diffusers        by diffusers, from a folder within, which also holds its weights
EDM-preconditioned  from the network within
a caller's own      by the caller, who gives it again
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pushforward._checks import check_count
from pushforward.diffusion.adapters import DiffusersNetwork, load_model
from pushforward.diffusion.lora import adapted, load_adapters, own_weights, save_adapters
from pushforward.diffusion.networks import MLP, NetworkConfig, UNet, build, config_from_json, config_to_json
from pushforward.diffusion.processes import Process, RectifiedFlow, VarianceExploding, VariancePreserving
from pushforward.diffusion.teachers import Denoiser, Preconditioned
from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.training.seal import digest, share
from pushforward.training.state import load_state, save_state

__all__ = ["load_denoiser", "save_denoiser"]

# Only these classes are made from a name in a file.
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, IndexError, MemoryError)
_PROCESSES = {kind.__name__: kind for kind in (VarianceExploding, VariancePreserving, RectifiedFlow)}


def save_denoiser(
    folder: Path, name: str, denoiser: Denoiser, extra: Mapping[str, Any], *, part: str | None = None
) -> None:
    """Write a denoiser as NAME.json and NAME.safetensors.

    Args:
        folder: Made if missing.
        name: NAME.
        denoiser: A denoiser whose network is a module.
        extra: Further entries, of any kind that `training.save_state` takes; `load_denoiser` returns them.
        part: The folder within to which a model of diffusers was saved; None for any other network.

    Raises:
        InvalidArgument: The network is a plain function, or the process a class of the caller's own.
        OSError: The files cannot be written.
    """
    if not isinstance(denoiser.network, nn.Module):
        raise InvalidArgument("the network is a plain function, which no file holds; only an nn.Module is saved")
    folder.mkdir(parents=True, exist_ok=True)
    network = _encode_network(denoiser.network, part)
    # A caller gives a module of their own again with its adapters in it.
    rebuilt = adapted(denoiser.network) is not None and _innermost(network)["kind"] != "own"
    state = {
        "process": _encode_process(denoiser.process),
        "predicts": denoiser.predicts,
        "labels": None if denoiser.labels is None else list(denoiser.labels),
        "network": network,
        "adapters": save_adapters(folder, denoiser.network) if rebuilt else None,
        "weights": None if part else own_weights(denoiser.network) if rebuilt else denoiser.network.state_dict(),
        "extra": dict(extra),
    }
    save_state(folder / name, state)
    _add_digests(folder, name, part)


def load_denoiser(folder: Path, name: str, network: nn.Module | None = None) -> tuple[Denoiser, dict[str, Any]]:
    """Load the denoiser that `save_denoiser` wrote, onto the CPU.

    Args:
        folder: The folder it was saved to.
        name: NAME.
        network: The network again, where it was the caller's own module; gets the saved parameters.

    Returns:
        The denoiser, and the further entries that were saved with it.

    Raises:
        CheckpointError: A file is missing, or is not what `save_denoiser` writes; the message names it.
        InvalidArgument: The network was the caller's own and is not given, or given and not needed.
    """
    file, state = folder / f"{name}.json", load_state(folder / name)
    _check_digests(folder, state)
    try:
        kind = _innermost(state["network"])["kind"]
    except (KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file} holds no denoiser: {error!r}") from error
    if (kind == "own") != (network is not None):
        raise InvalidArgument(
            f"{file} is of a network of this library or of diffusers, which is rebuilt from it; leave network= out"
            if network is not None
            else f"{file} is of a network of the caller's own, which no file holds; give it again as network="
        )
    try:
        rebuilt = _decode_network(state["network"], folder, network, state["weights"])
        if state["weights"] is not None:
            rebuilt.load_state_dict(state["weights"])
        if state.get("adapters"):
            load_adapters(folder, rebuilt, state["adapters"])
        denoiser = Denoiser(rebuilt, _decode_process(state["process"]), predicts=state["predicts"])
        labels = state.get("labels")  # of older files nobody knows
        denoiser.labels = None if labels is None else tuple(check_count("labels", one, least=0) for one in labels)
        return denoiser, dict(state["extra"])
    except CheckpointError:
        raise
    except _BROKEN as error:
        message = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{file} holds no denoiser that can be rebuilt: {type(error).__name__}: {message}"
        ) from error


def _add_digests(folder: Path, name: str, part: str | None) -> None:
    """Write the SHA-256 of every file of weights into NAME.json."""
    weights = [folder / f"{name}.safetensors"]
    for within in filter(None, (part, "adapters")):
        weights += sorted((folder / within).rglob("*.safetensors"))
    file = folder / f"{name}.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    state["sha256"] = {one.relative_to(folder).as_posix(): digest(one) for one in weights}
    file.write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
    for one in weights:
        share(one, file)


def _check_digests(folder: Path, state: Any) -> None:
    known = state.get("sha256") if isinstance(state, dict) else None
    if not isinstance(known, dict):
        warnings.warn(f"{folder} has no digests: whether its weights are whole is unknown", stacklevel=4)
        return
    for name, one in known.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if digest(file) != one:
            raise CheckpointError(f"{file} was altered: its SHA-256 is not the one that was saved")


def _encode_process(process: Process) -> dict[str, Any]:
    kind = type(process).__name__
    if _PROCESSES.get(kind) is not type(process):
        raise InvalidArgument(
            f"process is a {kind}, which no file can name; those that can are {', '.join(_PROCESSES)}"
        )
    return {"kind": kind} | {field.name: getattr(process, field.name) for field in fields(_PROCESSES[kind])}


def _decode_process(saved: dict[str, Any]) -> Process:
    return _PROCESSES[saved["kind"]](**{name: value for name, value in saved.items() if name != "kind"})


def _encode_network(network: nn.Module, part: str | None) -> dict[str, Any]:
    if isinstance(network, Preconditioned):
        inner = _encode_network(network.network, part)
        return {"kind": "edm", "sigma_data": network.sigma_data, "network": inner}
    if isinstance(network, DiffusersNetwork) and part is not None:
        return {
            "kind": "diffusers",
            "folder": part,
            "slope": network.slope,
            "offset": network.offset,
            "sign": network.sign,
            **({"latent": True} if network.latent else {}),
        }
    if isinstance(network, MLP | UNet):
        return {"kind": "config", "config": config_to_json(network.config)}
    return {"kind": "own", "class": type(network).__qualname__}


def _decode_network(saved: dict[str, Any], folder: Path, own: nn.Module | None, weights: Any) -> nn.Module:
    match saved:
        case {"kind": "edm", "sigma_data": float(sigma_data), "network": inner}:
            return Preconditioned(_decode_network(inner, folder, own, weights), sigma_data)
        case {"kind": "diffusers", "folder": ("unet" | "transformer") as part, **called}:
            latent = bool(called.pop("latent", False))
            numbers = {key: float(called[key]) for key in called}
            return DiffusersNetwork(load_model(folder / part), latent=latent, **numbers)
        case {"kind": "config", "config": config}:
            return _built(config_from_json(config), weights)
        case {"kind": "own"} if own is not None:
            # A module that was saved in its EDM preconditioning is given without it.
            return own
        case _:
            raise ValueError(f"a network of kind {saved.get('kind')!r} is unknown")


def _built(config: NetworkConfig, weights: Any) -> MLP | UNet:
    """The network of a configuration, if the saved weights hold as many numbers: a file may ask for any size."""
    with torch.device("meta"):
        asked = sum(tensor.numel() for tensor in build(config).state_dict().values())
    saved = sum(tensor.numel() for tensor in weights.values())
    if asked != saved:
        raise ValueError(f"its configuration asks for {asked} numbers, but {saved} were saved")
    return build(config)


def _innermost(saved: dict[str, Any]) -> dict[str, Any]:
    return _innermost(saved["network"]) if saved["kind"] == "edm" else saved
