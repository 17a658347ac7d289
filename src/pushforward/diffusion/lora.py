"""Low-rank adapters of peft in a student's network: saved apart from the network's own weights, and loaded into it.

    folder/
      adapters/NAME/adapter_config.json          what peft makes the adapter from
      adapters/NAME/adapter_model.safetensors    its weights, as `PeftModel.from_pretrained` reads them

This is the only module of the room that imports peft.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pushforward.errors import CheckpointError, InvalidArgument

__all__ = ["adapted", "load_adapters", "own_weights", "save_adapters", "weights_of_adapters"]

_FOLDER, _PREFIX = "adapters", "base_model.model."
# What peft raises on a configuration or weights that are not its own.
_BROKEN = (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, SafetensorError)


def adapted(network: Any) -> str | None:
    """The name of the innermost submodule that holds adapters; None where there are none."""
    modules = network.named_modules() if isinstance(network, nn.Module) else ()
    found = [name for name, module in modules if isinstance(getattr(module, "peft_config", None), dict)]
    return found[-1] if found else None


def own_weights(network: nn.Module) -> dict[str, Tensor]:
    """A network's state without its adapters, by the names that its weights have without them."""
    layers, kept = _layers(network), dict[str, Tensor]()
    for name, value in network.state_dict().items():
        layer = next((layer for layer in layers if name.startswith(layer)), None)
        if layer is None:
            kept[name] = value
        elif name.startswith(f"{layer}base_layer."):
            kept[layer + name.removeprefix(f"{layer}base_layer.")] = value
    return kept


def weights_of_adapters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of a network's adapters; none where it has no adapters."""
    layers = [] if adapted(network) is None else _layers(network)
    return [
        parameter
        for name, parameter in network.named_parameters()
        if any(name.startswith(layer) and not name.startswith(f"{layer}base_layer.") for layer in layers)
    ]


def save_adapters(folder: Path, network: nn.Module) -> dict[str, Any]:
    """Write a network's active adapters.

    Args:
        folder: Gets `adapters/NAME`.
        network: A network with adapters.

    Returns:
        A description of them, for `load_adapters`.
    """
    from peft import get_peft_model_state_dict

    within = adapted(network) or ""
    module: Any = network.get_submodule(within)
    layer: Any = module.get_submodule(_layers(module)[0].removesuffix("."))
    names = [name for name in module.peft_config if name in layer.active_adapters]
    for name in names:
        place = folder / _FOLDER / name
        place.mkdir(parents=True, exist_ok=True)
        module.peft_config[name].save_pretrained(str(place))
        weights = get_peft_model_state_dict(module, adapter_name=name)
        save_file(
            {_PREFIX + key: value.detach().cpu().contiguous() for key, value in weights.items()},
            place / "adapter_model.safetensors",
        )
    return {"within": within, "names": names}


def load_adapters(folder: Path, network: nn.Module, saved: dict[str, Any]) -> None:
    """Load saved adapters into a network, without gradients.

    Args:
        folder: The folder that `save_adapters` wrote to.
        network: The network without adapters.
        saved: The description that `save_adapters` returned.

    Raises:
        CheckpointError: A file is missing or broken, or does not fit the network.
        InvalidArgument: peft is not installed.
    """
    try:
        import peft
    except ImportError as missing:
        raise InvalidArgument("a student with adapters needs peft: pip install 'pushforward[diffusion]'") from missing
    module: Any = network.get_submodule(str(saved["within"]))
    names = [str(name) for name in saved["names"]]
    for name in names:
        place = folder / _FOLDER / name
        if Path(name).name != name or not place.is_dir():
            raise CheckpointError(f"{folder / _FOLDER} holds no adapter {name!r}")
        try:
            config = peft.PeftConfig.from_peft_type(**json.loads((place / "adapter_config.json").read_text("utf-8")))
            weights = load_file(place / "adapter_model.safetensors")
            peft.inject_adapter_in_model(config, module, adapter_name=name)
            weights = {key.removeprefix(_PREFIX): value for key, value in weights.items()}
            wrong = weights.keys() ^ peft.get_peft_model_state_dict(module, adapter_name=name).keys()
            if wrong:
                raise ValueError(f"{min(wrong)} is in only one of adapter and network")
            peft.set_peft_model_state_dict(module, weights, adapter_name=name)
        except _BROKEN as error:
            message = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{place} holds no adapter that can be loaded: {message}") from error
    for layer in _layers(module):
        module.get_submodule(layer.removesuffix(".")).set_adapter(names)
    network.requires_grad_(False)


def _layers(network: nn.Module) -> list[str]:
    """The name prefixes of the layers that have adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [f"{name}." for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)]
