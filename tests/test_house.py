"""What the house promises about itself: what may import what, what runs unchanged, what is pinned."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "pushforward"

# What each room may import besides the standard library and the package. import-linter forbids by name; this allows.
ALLOWED = {
    "ot": {"torch", "scipy", "numpy"},
    "errors.py": {"torch"},
    "_checks.py": {"torch", "numpy"},
    "_typed.py": {"torch", "numpy"},
    "divergences.py": {"torch"},
    "training": {"torch", "numpy", "safetensors"},
    "diffusion": {"torch", "tqdm", "diffusers", "peft", "safetensors", "numpy", "PIL"},
    "lm": {"torch", "numpy", "scipy", "sklearn", "transformers", "datasets", "peft", "safetensors"},
    "_interop.py": {"torch", "numpy", "scipy"},
    "__init__.py": set(),
    "maps": {"torch", "numpy", "scipy", "sklearn", "tqdm"},
    "metrics": {"torch", "numpy", "scipy"},
    "plots.py": {"matplotlib", "numpy", "scipy"},
    "samples.py": {"numpy", "sklearn", "PIL"},
    "report": {"matplotlib", "numpy", "scipy", "jinja2", "pydantic"},
    "cli": {"safetensors", "tyro"},
    "jobs": {
        "anndata",
        "tokenizers",
        "transformers",
        "pydantic",
        "tqdm",
        "tyro",
        "numpy",
        "scipy",
        "PIL",
        "torch",
        "yaml",
        "safetensors",
    },
}


def _third_party(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    # _typeshed is no package: type checkers alone know it.
    return found - set(sys.stdlib_module_names) - {"pushforward", "_typeshed"}


@pytest.mark.parametrize("room", sorted({path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")}))
def test_a_room_imports_only_what_it_may(room: str):
    files = [SOURCE / room] if room.endswith(".py") else sorted((SOURCE / room).rglob("*.py"))
    for file in files:
        assert _third_party(file) <= ALLOWED[room], file


def test_importing_the_package_imports_no_torch():
    code = "import sys, pushforward; assert not {'torch', 'numpy', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_there():
    import pushforward

    assert set(pushforward.__all__) <= set(dir(pushforward))
    for name in pushforward.__all__:
        assert getattr(pushforward, name) is not None


def _python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_runs_unchanged(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for block in _python_blocks(page):
        exec(compile(block, str(page), "exec"), space)


def test_the_readme_has_code_to_run():
    assert _python_blocks(ROOT / "README.md")


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_runs_and_is_short(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert len(example.read_text().splitlines()) < 80


def test_every_direct_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {Requirement(line).name.lower(): Requirement(line) for line in lines}
    assert all(str(pin.specifier).startswith("==") for pin in pins.values())
    assert "torch==2.13.0" in lines
    asked = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    for requirement in map(Requirement, asked + project["build-system"]["requires"]):
        version = str(pins[requirement.name.lower()].specifier).removeprefix("==")
        assert requirement.specifier.contains(version), requirement


def test_no_compiler_flag_that_changes_the_caller_s_arithmetic():
    # At link they set flush-to-zero for the whole process.
    flags = [line for line in (ROOT / "CMakeLists.txt").read_text().splitlines() if not line.startswith("#")]
    assert not re.search(r"-ffast-math|-Ofast|-funsafe-math-optimizations", "\n".join(flags))


def test_nothing_tracked_names_a_place_of_one_machine():
    # Written in pieces, so that this file does not find itself.
    places = ["/" + "work/", "/" + "root/", "/" + "tmp/", "/" + "home/"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout, so there is no list of tracked files")
    for name in tracked.stdout.splitlines():
        file = ROOT / name
        if file.suffix in (".py", ".md", ".toml", ".txt", ".yaml", ".json", ".html", ".css", ".svg") and file.exists():
            text = file.read_text()
            assert not [place for place in places if place in text], name
