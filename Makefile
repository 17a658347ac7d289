# Everything runs in .venv; the first call of any target makes it, later calls find it ready.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NATIVE := src/pushforward/ot/_native
KERNELS := build/native/.built

.PHONY: setup tour test check sanitize bench

setup: $(READY) $(KERNELS)

# Debian ships Python without ensurepip unless python3-venv is installed; the second line of the venv does without it.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pushforward needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(install_compiler)
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  { $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@$(path_alone)
	@touch $@

# The build backend installs a finder that comes before every path, PYTHONPATH included; the path alone is enough.
path_alone = echo $(abspath src) >"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/_editable_skbc_pushforward.pth"

# The native kernels need a C++ compiler and Python's headers. apt brings them where it may; all works without them, more slowly.
define install_compiler
wanted=; \
command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || wanted=g++; \
$(PYTHON) -c 'import pathlib, sysconfig as s; raise SystemExit(not pathlib.Path(s.get_path("include"), "Python.h").exists())' || \
  wanted="$$wanted python3-dev"; \
test "$$(id -u)" = 0 && root= || root="sudo -n"; \
test -z "$$wanted" || { echo "apt-get install $$wanted, to build the native kernels"; command -v apt-get >/dev/null && \
  $$root apt-get update -qq && \
  $$root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$wanted >/dev/null; } || \
  echo "could not install $$wanted: going on without native kernels"
endef

# Without a compiler CMake says so and nothing comes of it: the next call then looks again.
$(KERNELS): CMakeLists.txt $(wildcard $(NATIVE)/*.cpp $(NATIVE)/*.h) $(READY)
	@$(call cmake,build/native)
	@if ls $(NATIVE)/_kernels.*.so >/dev/null 2>&1; then touch $@; fi

cmake = $(BIN)/cmake --fresh -S . -B $(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
  -DPython_EXECUTABLE=$(abspath $(BIN))/python -Wno-unused-cli --log-level=WARNING $(2) >/dev/null && $(BIN)/cmake --build $(1) -- --quiet

tour: setup
	$(BIN)/pushforward tour

# By file in two processes, in the order that tests/conftest.py gives.
test: setup
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder --durations=10

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_words.py

# The kernels' tests under the address and undefined behaviour sanitizers, in a copy of the package that holds such a build.
SANITIZED := build/sanitize
sanitize: setup
	$(call cmake,$(SANITIZED),-DPUSHFORWARD_SANITIZE=ON)
	rm -rf $(SANITIZED)/src && cp -R src $(SANITIZED)/src && cp $(SANITIZED)/_kernels.*.so $(SANITIZED)/$(NATIVE)
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	  PYTHONPATH=$(abspath $(SANITIZED))/src $(BIN)/python -m pytest --capture=no tests/ot/native

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[bench]'
	@$(path_alone)
	$(BIN)/python benchmarks/ot_solvers.py
	$(BIN)/python benchmarks/published_table.py
	$(BIN)/python benchmarks/ot_batches.py
	$(BIN)/python benchmarks/tables.py
