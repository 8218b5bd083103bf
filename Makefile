# Everything from a machine with Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Several processes of one thread each; the tests that are of threads set their own number.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist worksteal
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed

DATA ?=
REPRODUCE := $(BIN)/python -m janus_pl.cli.reproduce $(if $(DATA),--data $(DATA))

.PHONY: help install quickstart reproduce reproduce-fast nightly seeds package wheel alone lowest results calibration check test soak mutants lint audit bench site
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(INSTALLED)  ## make .venv with the pinned packages

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

quickstart: $(INSTALLED)  ## train SGD and GD on embedded data and compare them
	$(BIN)/python -m janus_pl.cli.quickstart

nightly: seeds wheel alone lowest  ## seeds 0 to 4, and the tests on the wheel and on other versions

seeds: $(INSTALLED)  ## the quickstart with seeds 0 to 4, for the ratios of each
	for seed in 0 1 2 3 4; do echo "seed $$seed"; $(BIN)/python -m janus_pl.cli.quickstart --seed_everything $$seed --trainer.enable_progress_bar false || exit; done

package: $(INSTALLED)  ## the wheel, in dist/
	rm -rf build dist
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

# An environment in a folder: its own packages first, then the pinned ones; nothing of the checkout.
define environment
rm -rf $(1)
$(BIN)/python -m venv --without-pip $(1)
$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$(echo $(1)/lib/python*/site-packages)/pinned.pth
endef

# Without the repository on the path: -P leaves out the working directory.
ELSEWHERE := PYTHONSAFEPATH=1 OMP_NUM_THREADS=1
TESTS ?= tests
wheel: package  ## the tests on the installed wheel, without the repository on the path; TESTS=tests/cli
	$(call environment,.wheel)
	$(PIP) --python .wheel install --no-deps --no-index --ignore-installed dist/*.whl
	$(ELSEWHERE) .wheel/bin/python -c "import janus_pl; assert '/.wheel/' in janus_pl.__file__, janus_pl"
	mkdir .wheel/beside && ln -s $(CURDIR)/benchmarks .wheel/beside/benchmarks
	PYTHONPATH=$(CURDIR)/.wheel/beside $(ELSEWHERE) .wheel/bin/python -m pytest -q -o pythonpath=tests --numprocesses auto --maxprocesses 4 --dist worksteal $(TESTS)

alone: package  ## three callbacks in an environment with torch, lightning and numpy alone
	rm -rf .alone && $(BIN)/python -m venv .alone
	$(PIP) --python .alone install --constraint requirements.lock torch lightning numpy
	$(PIP) --python .alone install --no-deps --no-index dist/*.whl
	cd $$(mktemp -d) && $(CURDIR)/.alone/bin/python -P $(CURDIR)/tests/somebodys_project.py > /dev/null

lowest: $(INSTALLED)  ## the tests on the oldest versions that are allowed: requirements.lowest
	$(call environment,.lowest)
	$(PIP) --python .lowest install --no-deps --ignore-installed --requirement requirements.lowest
	PYTHONPATH=$(CURDIR) OMP_NUM_THREADS=1 .lowest/bin/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist worksteal -k "not float32" $(TESTS)

reproduce: $(INSTALLED)  ## every figure from real runs, for hours; DATA=DIR takes a folder of images
	$(REPRODUCE)

reproduce-fast: $(INSTALLED)  ## the figures in minutes: linear regression, and digits
	$(REPRODUCE) --fast --run_dir runs-fast --out report-fast

RUNS ?=
results: $(INSTALLED)  ## figures, tables and verdicts of docs/results/; RUNS=DIR first records runs
	$(BIN)/python docs/results.py $(if $(RUNS),--record $(RUNS))

calibration: $(INSTALLED)  ## how often the rules of verify are wrong: the table of docs/claims.md
	$(BIN)/python docs/calibration.py

check: lint  ## lint, and the tests without fit, command line, process or browser
	$(PYTEST) -m "not soak and not heavy"

test: $(INSTALLED)  ## the whole test suite
	$(PYTEST)

soak: $(INSTALLED)  ## the tests that take long: runs killed anywhere, several processes, fresh ones
	$(PYTEST) -m soak

AREA ?=
N ?= 40
mutants: $(INSTALLED)  ## small faults that the tests notice, by area; for hours; AREA=theory N=20
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'cosmic-ray>=8.7,<9'
	$(BIN)/python tests/mutants/run.py --n $(N) $(if $(AREA),--area $(AREA))

audit: $(INSTALLED)  ## known vulnerabilities of the pinned packages; asks a database online
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement requirements.lock --no-deps

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## side-by-side timings, printed as ratios
	$(BIN)/python -m benchmarks.run

site: $(INSTALLED)  ## the pages of docs/ as a site in site/, which opens from disk; dead links fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
