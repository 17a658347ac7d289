"""Models of diffusers as teachers, and students as models that plain diffusers loads.

    prediction = sign model(x_t, offset + slope t, condition)

`schedulers` reads slope, offset, sign and the kind of prediction from a scheduler's config. Besides `unet` this is the
only module that imports diffusers. It opens no pickle and runs no code but that of the installed package.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.diffusion.generator import Generator
from pushforward.diffusion.lora import adapted, own_weights
from pushforward.diffusion.processes import VarianceExploding
from pushforward.diffusion.schedulers import FewSteps, check_known, convention_of, few_steps
from pushforward.diffusion.teachers import Denoiser, from_edm, in_precision
from pushforward.errors import CheckpointError, InvalidArgument

__all__ = ["DiffusersNetwork", "from_diffusers", "load_model", "save_student"]

_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
# What diffusers raises on files that are missing, cut short, or not what their names say.
_BROKEN = (
    *(OSError, ValueError, TypeError, LookupError, RuntimeError, AttributeError, ArithmeticError, AssertionError),
    *(ImportError, MemoryError),
)
_PARTS = ("unet", "transformer")
_DECODERS = ("vae", "vqvae", "vqgan", "movq")


def from_diffusers(model: nn.Module | str | Path, scheduler: Any = None) -> Denoiser:
    """A teacher from a model of diffusers; process and prediction are read from the scheduler's config.

    Args:
        model: A folder that a pipeline, or a model, was saved to; or a model that is loaded: UNet2DModel,
            UNet2DConditionModel, transformers in the manner of DiT, SD3 or Flux.
        scheduler: A scheduler of diffusers; None for the one in the pipeline's folder.

    Returns:
        A denoiser whose condition is class labels (integers), prompt embeddings (floating), or a dict of whatever
        arguments the model's `forward` takes. Trainable as it is; whoever owns it freezes it.

    Raises:
        InvalidArgument: No scheduler, or one whose process or prediction is unknown here.
        CheckpointError: A folder that is missing or broken, or whose weights are pickled.

    Example:
        >>> import torch
        >>> from diffusers import DDPMScheduler, UNet2DModel
        >>> unet = UNet2DModel(
        ...     sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4,
        ...     down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        ... )
        >>> teacher = from_diffusers(unet, DDPMScheduler(prediction_type="v_prediction"))
        >>> teacher.predicts, teacher.x0(torch.zeros(2, 1, 8, 8), torch.tensor(500.0)).shape
        ('v', torch.Size([2, 1, 8, 8]))
    """
    given: Any = model
    latent = False
    if isinstance(model, str | Path):
        given, scheduler, latent = _loaded(Path(model), scheduler)
    if not isinstance(given, nn.Module) or not hasattr(given, "config"):
        raise InvalidArgument(
            f"model is a {type(given).__name__}; a folder or a model of diffusers is needed (of a pipeline, its .unet "
            "or .transformer, and its .scheduler); from_callable takes any other network"
        )
    if scheduler is None:
        raise InvalidArgument("scheduler is missing: only a pipeline's folder brings its own; give the model's")
    at = convention_of(scheduler, type(given).__name__)
    network = DiffusersNetwork(given, slope=at.slope, offset=at.offset, sign=at.sign, latent=latent)
    if isinstance(at.process, VarianceExploding) and at.sigma_data is not None:
        return from_edm(network, at.process, sigma_data=at.sigma_data)
    return Denoiser(network, at.process, predicts=at.predicts)


class DiffusersNetwork(nn.Module):
    """A model of diffusers behind the interface of this room's networks: network(x_t, t, condition).

    Args:
        model: Takes (x, ..., timestep=..., its conditions by name) and returns a tuple where that is asked for.
        slope, offset: The model's time is offset + slope t.
        sign: 1 or -1, the factor of the model's output. Where the output has twice as many channels, its first half is
            taken.
        latent: Whether the model denoises latents, from which a decoder makes images.
    """

    # Samples and conditions are turned into the model's own precision here.
    own_precision = True

    def __init__(
        self,
        model: nn.Module,
        *,
        slope: float = 1.0,
        offset: float = 0.0,
        sign: float = 1.0,
        latent: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.slope, self.offset, self.sign, self.latent = slope, offset, sign, latent
        self.feature_taps = _taps(model)
        _, *others = inspect.signature(model.forward).parameters.values()
        self._takes = {one.name for one in others}
        self._needs = {one.name for one in others if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD}
        config = getattr(model, "config", {})
        # A table of embeddings, one a timestep, is looked up by integers.
        self._counts = config.get("time_embedding_type") == "learned"

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The prediction, shaped like x_t; the model computes it in its own precision."""
        time = self.offset + self.slope * t
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), x_t.dtype)
        arguments = in_precision(self._named(condition), dtype) | {"timestep": time.long() if self._counts else time}
        value: Tensor = self.model(x_t.to(dtype), **arguments, return_dict=False)[0]
        if value.ndim == x_t.ndim and value.shape[1] == 2 * x_t.shape[1]:
            value = value[:, : x_t.shape[1]]  # the other half is the variance that such a model learned, too
        return self.sign * value.to(x_t.dtype)

    def _named(self, condition: Any) -> dict[str, Any]:
        if condition is None:
            given: dict[str, Any] = {}
        elif isinstance(condition, Mapping):
            given = dict(condition)
        elif isinstance(condition, Tensor):
            given = {"encoder_hidden_states" if condition.is_floating_point() else "class_labels": condition}
        else:
            raise InvalidArgument(
                f"condition is a {type(condition).__name__}; a tensor, or a dict of arguments, is needed"
            )
        kind, wrong = type(self.model).__name__, sorted(given.keys() - self._takes)
        missing = sorted(self._needs - given.keys() - {"timestep"})
        if wrong:
            raise InvalidArgument(f"condition: {kind} takes no {wrong[0]}; it takes {', '.join(sorted(self._takes))}")
        if missing:
            raise InvalidArgument(f"condition: {kind} needs {missing[0]}; give it as the condition")
        return given


def load_model(folder: Path) -> nn.Module:
    """The model of diffusers in a folder that diffusers saved it to, on the CPU.

    Args:
        folder: Holds config.json and the weights as safetensors.

    Returns:
        The model, of a class of diffusers.

    Raises:
        CheckpointError: The folder is missing or broken, its weights are pickled, or its class is not diffusers' own.
    """
    diffusers = _diffusers()
    name = _class_name(folder / "config.json")
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise CheckpointError(f"{folder / 'config.json'} is of class {name!r}, which is no model of diffusers")
    _refuse_pickled(folder)
    try:
        model, report = kind.from_pretrained(  # pyright: ignore[reportAttributeAccessIssue]
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=_variant(folder),
        )
    except _BROKEN as error:
        raise CheckpointError(f"{folder} holds no {name} that can be loaded: {_line(error)}") from error
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]
    if wrong:
        raise CheckpointError(
            f"{folder}: weights and config.json do not fit together; the first to differ is {wrong[0]}"
        )
    return model


def save_student(folder: Path, generator: Generator, network: DiffusersNetwork) -> str:
    """Write a student's model, and what plain diffusers needs to draw the same samples.

    Args:
        folder: Made if missing. Gets `unet` or `transformer`, and `scheduler`; for a UNet2DModel also the
            `model_index.json` of a pipeline, which needs nothing else.
        generator: The student.
        network: The student's network. There is a warning where diffusers has no scheduler for the student's times.

    Returns:
        The name of the model's folder within `folder`.
    """
    diffusers, model, denoiser = _diffusers(), network.model, generator.denoiser
    part = "unet" if "UNet" in type(model).__name__ else "transformer"
    (folder / "model_index.json").unlink(missing_ok=True)
    # With adapters in it the model alone is not the student.
    plain = network.sign == 1 and network.offset == 0 and adapted(model) is None
    found = few_steps(denoiser.process, denoiser.predicts, generator.times, slope=network.slope) if plain else None
    if found is not None and _is_whole(model, found):
        pipeline = getattr(diffusers, found.pipeline)
        scheduler = getattr(diffusers, found.scheduler)(**found.arguments)
        pipeline(unet=model, scheduler=scheduler).save_pretrained(folder, safe_serialization=True)
        return part
    _without_adapters(model).save_pretrained(folder / part, safe_serialization=True)
    if found is not None:
        getattr(diffusers, found.scheduler)(**found.arguments).save_pretrained(folder / "scheduler")
    else:
        warnings.warn(
            f"no scheduler of diffusers goes with this student (times {generator.times}), so plain diffusers finds no "
            f"pipeline in {folder}; OneStepPipeline does",
            stacklevel=3,
        )
    return part


def _loaded(folder: Path, scheduler: Any) -> tuple[nn.Module, Any, bool]:
    """Model and scheduler, and whether the folder holds a decoder beside them."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; a model of diffusers is loaded from the one it was saved to")
    if not (folder / "model_index.json").exists():
        if not (folder / "config.json").exists():
            raise CheckpointError(
                f"{folder} has neither model_index.json nor config.json: diffusers saved nothing there"
            )
        return load_model(folder), scheduler, False
    index = _json(folder / "model_index.json")
    part = next((part for part in _PARTS if part in index), None)
    if part is None:
        raise CheckpointError(f"{folder / 'model_index.json'} has no {' and no '.join(_PARTS)}")
    latent = any(name in index for name in _DECODERS)
    return load_model(folder / part), _load_scheduler(folder / "scheduler") if scheduler is None else scheduler, latent


def _load_scheduler(folder: Path) -> Any:
    name = _class_name(folder / "scheduler_config.json")
    check_known(name)
    try:
        return getattr(_diffusers(), name).from_pretrained(folder, local_files_only=True)
    except _BROKEN as error:
        raise CheckpointError(f"{folder} holds no {name} that can be loaded: {_line(error)}") from error


def _without_adapters(model: Any) -> Any:
    """The model itself, or a copy with the same weights and without adapters where it has some."""
    if adapted(model) is None:
        return model
    with torch.device("meta"):
        plain = type(model).from_config(model.config)
    plain.load_state_dict(own_weights(model), assign=True)
    return plain


def _is_whole(model: nn.Module, found: FewSteps) -> bool:
    """Whether a pipeline needs nothing besides model and scheduler."""
    config: Any = model.config
    if type(model).__name__ != "UNet2DModel" or config.in_channels != config.out_channels:
        return False
    if found.pipeline == "ConsistencyModelPipeline":
        return isinstance(config.sample_size, int)
    return config.sample_size is not None and config.num_class_embeds is None and config.class_embed_type is None


def _taps(model: nn.Module) -> tuple[str, ...]:
    """The name of the middle submodule, if its output is one tensor; of two-stream transformers, the last norm."""
    if isinstance(getattr(model, "mid_block", None), nn.Module):
        return ("model.mid_block",)
    if isinstance(getattr(model, "norm_out", None), nn.Module):
        return ("model.norm_out",)
    blocks = getattr(model, "transformer_blocks", None)
    return (
        (f"model.transformer_blocks.{len(blocks) // 2}",) if isinstance(blocks, nn.ModuleList) and len(blocks) else ()
    )


def _refuse_pickled(folder: Path) -> None:
    names = [file.name for file in sorted(folder.iterdir())]
    shards: list[str] = []
    for index in folder.glob("*.safetensors.index.json"):
        listed = _json(index).get("weight_map")
        if not isinstance(listed, dict):
            raise CheckpointError(f"{index} lists no files")
        shards += map(str, listed.values())
    safe = [name for name in names if name.endswith(".safetensors")]
    # What lies beside safetensors is not opened; what their index leads to would be.
    pickled = [name for name in shards if not name.endswith(".safetensors")]
    pickled += [] if safe else [name for name in names if Path(name).suffix in _PICKLED]
    if pickled:
        raise CheckpointError(
            f"{folder / pickled[0]} is pickled, and loading it could run code; load it where you trust it, and save it "
            "again with safe_serialization=True"
        )
    if not safe:
        raise CheckpointError(f"{folder} holds no weights: no file there ends in .safetensors")


def _variant(folder: Path) -> str | None:
    """The variant in which the weights were saved, say fp16; None where there are plain weights.

    Raises:
        CheckpointError: There are several, and none of them is the plain one.
    """
    names = [file.name.removesuffix(".safetensors") for file in folder.glob("*.safetensors")]
    # diffusion_pytorch_model.fp16, diffusion_pytorch_model.fp16-00001-of-00002, diffusion_pytorch_model-00001-of-00002
    found = {re.sub(r"-\d{5}-of-\d{5}$", "", name).partition(".")[2] for name in names}
    if not found or "" in found:
        return None
    if len(found) > 1:
        raise CheckpointError(f"{folder} holds the variants {', '.join(sorted(found))} and no plain weights; keep one")
    return found.pop()


def _class_name(file: Path) -> str:
    name = _json(file).get("_class_name")
    if not isinstance(name, str):
        raise CheckpointError(f"{file} names no class, so it was not saved by diffusers")
    return name


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON: {_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__} where an object is expected")
    return content


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as missing:
        raise InvalidArgument("models of diffusers need it: pip install 'pushforward[diffusion]'") from missing
    return diffusers


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
