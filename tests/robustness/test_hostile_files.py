"""No file that is loaded runs code: pickles and modules planted in every slot, and every door that reads it opened."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robustness.tiny_runs import PROCESS, RUNS, SIZE, checkpoints, save_map_run

from pushforward.cli.main import main
from pushforward.diffusion import Generator, OneStepPipeline, networks, teachers
from pushforward.diffusion.teacher_training import load_teacher, save_teacher
from pushforward.errors import PushforwardError
from pushforward.maps import load_map
from pushforward.training.seal import digest, sealed

LM: dict[str, Any] = {"n_embd": 4, "n_layer": 2, "n_head": 1, "n_positions": 16, "vocab_size": 10}


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def by_torch(marker: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"state": Bomb(marker)}, stream)
    return stream.getvalue()


def by_numpy(marker: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([[Bomb(marker), 1.0]] * 3, dtype=object), allow_pickle=True)
    return stream.getvalue()


def by_numpy_zipped(marker: Path) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=np.array([[Bomb(marker), 1.0]] * 3, dtype=object))
    return stream.getvalue()


def by_pickle(marker: Path) -> bytes:
    return pickle.dumps(Bomb(marker))


PICKLES = pytest.mark.parametrize("pickled", [by_pickle, by_torch], ids=["pickle", "torch"])


@pytest.fixture
def marker(tmp_path: Path):
    """The file that any of the payloads makes; looked for when the test has ended, too."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists(), "code of a file was run"


def refused(load: Callable[[], object]) -> None:
    """Nothing may come of it but an error of the library's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(PushforwardError):
            load()


def refused_in_one_line(capsys: pytest.CaptureFixture[str], *words: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = main([str(word) for word in words])
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.count("\n") == 1
    assert "Traceback" not in said


def code(marker: Path) -> str:
    """A module that makes the file when it is imported, and has whatever class it is asked for."""
    touch = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    return touch + "def __getattr__(name):\n    return type(name, (), {})\n"


def test_the_payloads_are_live(tmp_path: Path):
    # If they made no file, nothing below would mean anything.
    for k, load in enumerate(
        (
            lambda mark: pickle.loads(by_pickle(mark)),
            lambda mark: torch.load(io.BytesIO(by_torch(mark)), weights_only=False),
            lambda mark: np.load(io.BytesIO(by_numpy(mark)), allow_pickle=True),
            lambda mark: np.load(io.BytesIO(by_numpy_zipped(mark)), allow_pickle=True)["images"],
            lambda mark: exec(code(mark), {}),
        )
    ):
        load(tmp_path / str(k))
        assert (tmp_path / str(k)).exists()


# ---- checkpoints of the trainers


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each trainer, with two checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    for name, run in RUNS.items():
        run(folder / name)
    return {name: folder / name for name in RUNS}


def forge(checkpoint: Path) -> None:
    """Make the manifest say that all files are what was saved: a forger can do this much."""
    file = checkpoint / "manifest.json"
    content = json.loads(file.read_text())
    inside = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path != file]
    content["files"] = {
        path.relative_to(checkpoint).as_posix(): {"bytes": path.stat().st_size, "sha256": digest(path)}
        for path in inside
    }
    del content["sha256"]
    file.write_text(sealed(content))


@pytest.mark.parametrize("slot", ["training.json", "training.safetensors", "training.pt", "manifest.json"])
@pytest.mark.parametrize("name", ["student", "teacher", "map"])
def test_a_checkpoint(name: str, slot: str, trained: Any, tmp_path: Path, marker: Path):
    run = shutil.copytree(trained[name], tmp_path / "run")
    last = checkpoints(run)[0]
    (last / slot).write_bytes(by_pickle(marker))
    with pytest.warns(UserWarning, match=f"{last.name} is passed over: .*{slot}"):
        RUNS[name](run)


@PICKLES
@pytest.mark.parametrize("slot", ["training.json", "training.safetensors", "training.pt"])
@pytest.mark.parametrize("name", ["student", "teacher", "map"])
def test_a_forged_checkpoint(name: str, slot: str, pickled: Any, trained: Any, tmp_path: Path, marker: Path):
    run = shutil.copytree(trained[name], tmp_path / "run")
    last = checkpoints(run)[0]
    (last / slot).write_bytes(pickled(marker))
    forge(last)
    if slot == "training.pt":  # nobody's file, which nobody reads
        RUNS[name](run)
    else:
        refused(lambda: RUNS[name](run))


READ = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "pytorch_model.bin"]
UNREAD = ["training_args.bin", "optimizer.bin", "adapter_model.bin"]


@pytest.mark.parametrize("slot", [*READ, *UNREAD, "trainer_state.json"])
def test_a_checkpoint_of_a_language_model(slot: str, trained: Any, tmp_path: Path, marker: Path):
    run = shutil.copytree(trained["lm"], tmp_path / "run")
    last = checkpoints(run)[0]
    (last / slot).write_bytes(by_pickle(marker))
    with pytest.warns(UserWarning, match=f"{last.name} is passed over: .*{slot}"):
        RUNS["lm"](run)


@PICKLES
@pytest.mark.parametrize("slot", [*READ, *UNREAD])
def test_a_forged_checkpoint_of_a_language_model(slot: str, pickled: Any, trained: Any, tmp_path: Path, marker: Path):
    run = shutil.copytree(trained["lm"], tmp_path / "run")
    last = checkpoints(run)[0]
    (last / slot).write_bytes(pickled(marker))
    if slot == "pytorch_model.bin":  # so that no other weights are there to be read
        (last / "model.safetensors").unlink()
    forge(last)
    if slot in UNREAD:
        RUNS["lm"](run)
    else:
        refused(lambda: RUNS["lm"](run))


@pytest.mark.parametrize("index", ["pytorch_model.bin.index.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("kind", [by_pickle, by_torch], ids=["pickle", "torch"])
def test_a_checkpoints_index_that_leads_to_a_pickle(index: str, kind: Any, trained: Any, tmp_path: Path, marker: Path):
    run = shutil.copytree(trained["lm"], tmp_path / "run")
    last = checkpoints(run)[0]
    (last / "model.safetensors").unlink()
    (last / "part.bin").write_bytes(kind(marker))
    (last / index).write_text(json.dumps({"metadata": {}, "weight_map": {"transformer.wte.weight": "part.bin"}}))
    forge(last)
    refused(lambda: RUNS["lm"](run))


# ---- maps, students, teachers


@PICKLES
@pytest.mark.parametrize("slot", ["map.json", "state.json", "state.safetensors"])
def test_a_map(slot: str, pickled: Any, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "map"
    points = np.random.default_rng(0).normal(size=(20, 2))
    save_map_run(tmp_path)
    np.save(tmp_path / "points.npy", points)
    file = folder / slot
    if slot != "map.json":
        file = next(folder.glob(f"map-*{file.suffix}"))
    file.write_bytes(pickled(marker))
    if slot != "map.json":
        entry = json.loads((folder / "map.json").read_text())
        entry["files"][file.name] = {"bytes": file.stat().st_size, "sha256": digest(file)}
        del entry["sha256"]
        (folder / "map.json").write_text(sealed(entry))
    refused(lambda: load_map(folder))
    refused_in_one_line(capsys, "apply-map", tmp_path, tmp_path / "points.npy")


@PICKLES
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("name", ["student", "teacher"])
def test_a_generator(
    name: str, suffix: str, pickled: Any, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / name
    save_generator(name, folder)
    weights = folder / f"{name}{suffix}"
    weights.write_bytes(pickled(marker))
    if suffix == ".safetensors":
        file = folder / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"sha256": {weights.name: digest(weights)}}))
    refused(lambda: load_generator(name, folder))
    refused_in_one_line(capsys, "sample", folder, "--out", tmp_path / "drawn.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"process": {"kind": "evil.Evil"}},
        {"network": {"kind": "evil.Evil", "class": "Evil"}},
        {"network": {"kind": "config", "config": {"kind": "evil.Evil", "shape": [2]}}},
        {"auto_map": {"AutoModel": "evil.Evil"}, "network": {"kind": "own", "class": "evil.Evil"}},
        {"adapters": {"within": "", "names": ["../evil"]}},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("name", ["student", "teacher"])
def test_a_generator_that_names_a_class_of_its_own(
    name: str, change: dict[str, Any], tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / name
    save_generator(name, folder)
    (folder / "evil.py").write_text(code(marker))
    monkeypatch.syspath_prepend(folder)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(lambda: load_generator(name, folder))


@PICKLES
def test_adapters(pickled: Any, tmp_path: Path, marker: Path):
    peft = pytest.importorskip("peft")
    network = networks.build(SIZE)
    target = next(name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear))
    peft.inject_adapter_in_model(peft.LoraConfig(r=1, target_modules=[target]), network)
    denoiser = teachers.from_edm(network, PROCESS)
    OneStepPipeline(Generator(denoiser, times=(5.0,)), shape=(2,)).save_pretrained(tmp_path / "student")
    file = tmp_path / "student" / "student.json"
    for name in ("adapter_model.safetensors", "adapter_config.json", "adapter_model.bin"):
        folder = shutil.copytree(tmp_path / "student", tmp_path / name)
        weights = folder / "adapters" / "default" / name
        weights.write_bytes(pickled(marker))
        if name.endswith("bin"):
            weights.with_suffix(".safetensors").unlink()
        content = json.loads(file.read_text())
        content["sha256"] = {str(path.relative_to(folder)): digest(path) for path in folder.rglob("*.safetensors")}
        (folder / "student.json").write_text(json.dumps(content))
        refused(lambda folder=folder: OneStepPipeline.from_pretrained(folder))


def save_generator(name: str, folder: Path) -> None:
    denoiser = teachers.from_edm(networks.build(SIZE), PROCESS)
    if name == "teacher":
        save_teacher(folder, denoiser, shape=(2,))
    else:
        OneStepPipeline(Generator(denoiser, times=(5.0,)), shape=(2,)).save_pretrained(folder)


def load_generator(name: str, folder: Path) -> object:
    return load_teacher(folder) if name == "teacher" else OneStepPipeline.from_pretrained(folder)


# ---- pipelines of diffusers


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    diffusers = pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("pipeline") / "saved"
    sizes: dict[str, Any] = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = diffusers.UNet2DModel(**blocks, **sizes, block_out_channels=(8, 8), norm_num_groups=4)
    diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler()).save_pretrained(folder)
    return folder


@PICKLES
@pytest.mark.parametrize("slot", ["weights", "index", "safetensors", "config.json", "scheduler", "model_index.json"])
def test_a_pipeline(
    slot: str, pickled: Any, pipeline: Path, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]
):
    folder = shutil.copytree(pipeline, tmp_path / "pipeline")
    unet = folder / "unet"
    weights = unet / "diffusion_pytorch_model.safetensors"
    places = {
        "weights": weights.with_suffix(".bin"),
        "index": unet / "part.bin",
        "safetensors": weights,
        "config.json": unet / "config.json",
        "scheduler": folder / "scheduler" / "scheduler_config.json",
        "model_index.json": folder / "model_index.json",
    }
    if slot in ("weights", "index"):
        weights.unlink()
    places[slot].write_bytes(pickled(marker))
    if slot == "index":
        index = {"metadata": {}, "weight_map": {"conv_in.weight": "part.bin"}}
        (unet / f"{weights.name}.index.json").write_text(json.dumps(index))
    refused(lambda: teachers.from_diffusers(folder))
    refused_in_one_line(capsys, "sample", folder, "--out", tmp_path / "drawn.npz")


@pytest.mark.parametrize(
    ("file", "change", "loads"),
    [
        ("model_index.json", {"_class_name": ["evil", "Evil"], "evil": ["evil", "Evil"]}, True),
        ("model_index.json", {"unet": ["evil", "Evil"], "scheduler": ["evil", "Evil"]}, True),
        ("unet/config.json", {"_class_name": "evil.Evil"}, False),
        ("unet/config.json", {"_class_name": ["evil", "Evil"]}, False),
        ("unet/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}, True),
        ("scheduler/scheduler_config.json", {"_class_name": "evil.Evil"}, False),
        ("scheduler/scheduler_config.json", {"auto_map": {"AutoModel": "evil.Evil"}}, True),
    ],
)
def test_a_pipeline_with_a_module_of_its_own(
    file: str,
    change: dict[str, Any],
    loads: bool,
    pipeline: Path,
    tmp_path: Path,
    marker: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    folder = shutil.copytree(pipeline, tmp_path / "pipeline")
    for place in (folder, folder / "unet", folder / "scheduler"):
        for name in ("evil.py", "pipeline.py", "__init__.py"):
            (place / name).write_text(code(marker))
        monkeypatch.syspath_prepend(place)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | change))
    if loads:  # what it says of a module is not read
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            teachers.from_diffusers(folder)
    else:
        refused(lambda: teachers.from_diffusers(folder))


# ---- folders of language models


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("lm") / "saved"
    config = transformers.GPT2Config(**LM, bos_token_id=0, eos_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    whole = Tokenizer(
        models.WordLevel({word: k for k, word in enumerate("_ ? a b c d e f g h".split())}, unk_token="?")
    )
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=whole, pad_token="_", unk_token="?").save_pretrained(folder)
    return folder


def opened(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every door at which a folder of a language model is read: none may load it."""
    import transformers

    from pushforward.lm import parse_student

    (tmp_path / "text.txt").write_text("a b c d e f g h " * 60)
    teacher = transformers.GPT2LMHeadModel(transformers.GPT2Config(**LM, bos_token_id=0, eos_token_id=0))
    refused(lambda: parse_student(str(folder), teacher))
    refused_in_one_line(capsys, "evaluate", folder, "--text", tmp_path / "text.txt", "--max-length", 8)


@PICKLES
@pytest.mark.parametrize("slot", ["pytorch_model.bin", "bin index", "safetensors index", "model.safetensors"])
def test_weights_of_a_language_model(
    slot: str, pickled: Any, language_model: Path, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]
):
    folder = shutil.copytree(language_model, tmp_path / "lm")
    (folder / "model.safetensors").unlink()
    kind = "pytorch_model.bin" if slot == "bin index" else "model.safetensors"
    (folder / ("part.bin" if "index" in slot else slot)).write_bytes(pickled(marker))
    if "index" in slot:
        content = {"metadata": {}, "weight_map": {"transformer.wte.weight": "part.bin"}}
        (folder / f"{kind}.index.json").write_text(json.dumps(content))
    opened(folder, tmp_path, capsys)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (
            "config.json",
            {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}},
        ),
        ("config.json", {"_attn_implementation": "evil/kernels"}),
        ("generation_config.json", {"attn_implementation": "evil/kernels"}),
    ],
    ids=["auto_map", "kernels", "kernels of generation"],
)
def test_a_language_model_with_a_module_of_its_own(
    file: str,
    change: dict[str, Any],
    language_model: Path,
    tmp_path: Path,
    marker: Path,
    capsys: pytest.CaptureFixture[str],
):
    folder = shutil.copytree(language_model, tmp_path / "lm")
    (folder / "evil.py").write_text(code(marker))
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    opened(folder, tmp_path, capsys)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_module_beside_a_known_architecture_is_not_read(
    file: str, language_model: Path, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]
):
    folder = shutil.copytree(language_model, tmp_path / "lm")
    (folder / "evil.py").write_text(code(marker))
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
    auto = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]} if "tokenizer" in file else dict.fromkeys(names, "evil.Evil")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | {"auto_map": auto}))
    (tmp_path / "text.txt").write_text("a b c d e f g h " * 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = main(["evaluate", str(folder), "--text", str(tmp_path / "text.txt"), "--max-length", "8"])
    assert done == 0, capsys.readouterr().err


# ---- recipes and data


@pytest.mark.parametrize("tag", ["python/object/apply:pathlib.Path.touch", "python/object/new:pathlib.Path"])
@pytest.mark.parametrize("verb", ["distill-lm", "distill-diffusion", "fit-map"])
def test_a_recipe(verb: str, tag: str, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]):
    text = f"teacher: !!{tag} [!!python/object/apply:pathlib.PosixPath ['{marker}']]\n"
    if verb != "fit-map":
        (tmp_path / "recipe.yaml").write_text(text)
        refused_in_one_line(capsys, verb, tmp_path / "recipe.yaml")
        return
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(text)
    for name in ("x.npy", "y.npy"):
        np.save(tmp_path / name, np.random.default_rng(len(name)).normal(size=(200, 2)))
    refused_in_one_line(
        capsys, verb, tmp_path / "x.npy", tmp_path / "y.npy", "--out", tmp_path / "run", "--resume"
    )  # fmt: skip


@pytest.mark.parametrize("pickled", [by_pickle, by_torch, by_numpy, by_numpy_zipped], ids=lambda made: made.__name__)
@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "png"])
@pytest.mark.parametrize("verb", ["solve", "fit-map", "apply-map", "train-diffusion"])
def test_data(verb: str, suffix: str, pickled: Any, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]):
    good, bad, run = tmp_path / "good.npy", tmp_path / f"bad.{suffix}", tmp_path / "run"
    points = np.random.default_rng(0).normal(size=(20, 2))
    np.save(good, points)
    bad.write_bytes(pickled(marker))
    save_map_run(tmp_path / "fitted")
    words: dict[str, tuple[object, ...]] = {
        "solve": (good, bad),
        "fit-map": (bad, good, "--out", run),
        "apply-map": (tmp_path / "fitted", bad),
        "train-diffusion": (bad, "--out", run),
    }
    refused_in_one_line(capsys, verb, *words[verb])
