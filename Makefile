# Every target sets itself up: a virtual environment of its own, renewed when its inputs change.
# Another Python has another one: make test PYTHON=python3.13
PYTHON ?= python3.11
VENV ?= .venv$(if $(filter-out python3.11,$(notdir $(PYTHON))),-$(notdir $(PYTHON)))
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# Property tests draw other examples each time; make test SEED=7 draws again those of 7.
SEED ?= $(shell od -An -N3 -tu4 /dev/urandom)
# The tests build environments too, of the same versions.
export CAI_CONSTRAINTS := $(CONSTRAINTS)

.PHONY: demo notebooks test test-lowest check docs dist bench clean

# The library alone, which is all that the demonstration takes.
$(VENV)/library: setup.cfg $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) torch
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) --no-build-isolation -e .
	touch $@

$(VENV)/installed: $(VENV)/library
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) --no-build-isolation -e ".[test]"
	touch $@

demo: $(VENV)/library
	$(BIN)/cai compare FrozenLake-v1 --horizon 60 --temperature 0.01 --out out/frozen_lake
	$(BIN)/cai compare tutorials/my_dynamics.py:model --out out/my_dynamics
	$(BIN)/cai draw tutorials/my_dynamics.py:model --out out/my_dynamics

# JupyterLab on the tutorials, with this environment as its kernel.
notebooks: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) --no-build-isolation -e ".[notebook]"
	$(BIN)/python -m jupyterlab tutorials

test: $(VENV)/installed
	@seed=$(strip $(SEED)); echo "make test SEED=$$seed"; \
	$(BIN)/python -m pytest -n 2 --hypothesis-seed=$$seed

# The lowest versions that setup.cfg allows.
test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

# mypy sees cai.models and cai.inference only where the package is really installed.
check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/installed .
	cd build/installed && ../../$(BIN)/mypy --config-file ../../setup.cfg -p cai

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) --no-build-isolation -e ".[docs]"
	touch $@

# MathJax with its glyphs in one file, so that formulas show without a network.
out/static/mathjax/tex-svg.js:
	mkdir -p $(@D)
	cd $(@D) && npm pack --silent mathjax@3.2.2
	tar -xzf $(@D)/mathjax-3.2.2.tgz -C $(@D) --strip-components=2 package/es5/tex-svg.js
	rm $(@D)/mathjax-3.2.2.tgz
	touch $@

# The site, in out/site; a warning is an error.
docs: $(VENV)/docs out/static/mathjax/tex-svg.js
	rm -rf out/docs out/doctrees out/site
	mkdir -p out/docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning -c docs -d out/doctrees out/docs out/site

# What would be published: built, and read as a package index reads it.
dist: $(VENV)/installed
	rm -rf dist
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) --no-build-isolation -e ".[release]"
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

# Shown, and kept for the page of the site that gives figures of speed.
bench: $(VENV)/installed
	mkdir -p out
	bash -o pipefail -c "$(BIN)/python -m benchmarks | tee out/speed.txt"

clean:
	rm -rf .venv .venv-* out build dist *.egg-info
