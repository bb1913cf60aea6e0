# Every target sets itself up: a virtual environment in .venv, renewed when its inputs change.
PYTHON ?= python3.11
BIN := .venv/bin
# Property tests draw other examples each time; make test SEED=7 draws again those of 7.
SEED ?= $(shell od -An -N3 -tu4 /dev/urandom)

.PHONY: demo test check bench clean

.venv/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e ".[test]"
	touch $@

demo: .venv/installed
	$(BIN)/cai compare FrozenLake-v1 --horizon 60 --temperature 0.01 --out out/frozen_lake
	$(BIN)/cai compare tutorials/my_dynamics.py:model --out out/my_dynamics
	$(BIN)/cai draw tutorials/my_dynamics.py:model --out out/my_dynamics

test: .venv/installed
	@seed=$(strip $(SEED)); echo "make test SEED=$$seed"; \
	$(BIN)/python -m pytest -n 2 --hypothesis-seed=$$seed

# mypy sees cai.models and cai.inference only where the package is really installed.
check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/installed
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/installed .
	cd build/installed && ../../$(BIN)/mypy --config-file ../../setup.cfg -p cai

bench: .venv/installed
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv out build dist *.egg-info
