# Everything is done in .venv, which make builds itself and renews when the requirements change.
#   make demo       the whole way of one CT series, in less than a minute
#   make check      format, lint, types, layers, the rules of the house
#   make test       all tests, in WORKERS=2 processes; says what was skipped, and for lack of what
#   make bench-engine, bench-memory    the network through every runtime; what long series take
#   make bench      how fast it receives, encodes, and does the whole job; ARGS="--rounds 1"
#   make bench-inference   the network's part: beside a published notebook's way, and the floor
#   make faults     the tests that kill, cut the power and fill the disk, at length; says what it found
#   make hostile-table   what hostile peers are answered, by the node and by stock pynetdicom
#   make fuzz      N=100000 mutated conversations with the front; SEED=1, CASE=4711 for one again
#   make soak      MINUTES=20 of everything at once, one peer in five hostile; ARGS="--docs FILE"
#   make guard-table  what the guard catches of real series, whole and damaged: DATA=/path/to/series
#   make verdicts   what becomes of each real series: DATA=/path/to/series LABELS=/path/to/labels
#   make train      trains the lung model anew: DATA=/path/to/volumes OUT=build/lung-unet
#   make evaluate   scores what was trained on the series in DATA; ARGS=--quick for a few minutes
#   make publish    puts it into models/lung-unet with its card: DATE=2026-01-31 MACHINE="2 cores"
#   make docs       the documents as HTML
# PYTHON=python3.12 make demo   uses another interpreter (3.11 or later)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests
WORKERS ?= 2
SEED ?= 1
N ?= 100000
MINUTES ?= 20

.PHONY: help demo test faults hostile-table fuzz soak check format bench guard-table verdicts \
  train evaluate publish docs clean

help:
	@sed -n 's/^#   //p' Makefile

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed: PYTHON=/path/to/python3.11 make $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,dev,openvino]'
	@touch $@

.venv: $(STAMP)

demo: $(STAMP)
	$(BIN)/dicom-node demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

faults: $(STAMP)
	$(BIN)/python -m pytest -m "" -n $(WORKERS) tests/faults $(ARGS)

hostile-table: $(STAMP)
	PYTHONPATH=tests $(BIN)/python scripts/hostile_table.py --out docs/hostile.md $(ARGS)

fuzz: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m fuzz.run --seed $(SEED) --count $(N) $(if $(CASE),--case $(CASE)) $(ARGS)

soak: $(STAMP)
	PYTHONPATH=tests $(BIN)/python scripts/soak.py --minutes $(MINUTES) $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/house

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-receive bench-encode bench-job

bench-%: $(STAMP)
	$(BIN)/python tests/bench/bench_$*.py $(ARGS)

TRAIN := $(BIN)/python models/lung-unet/train
OUT ?= build/lung-unet
MANIFEST ?= $(DATA)/MANIFEST.toml

train evaluate publish: $(STAMP)
	@test -n "$(DATA)" || { echo "Say where the CT volumes are: make $@ DATA=/path/to/folder"; exit 1; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train]'
	$(LUNG_UNET_$@) --data $(DATA) --manifest $(MANIFEST) $(ARGS)

LUNG_UNET_train = $(TRAIN)/train.py --out $(OUT)
LUNG_UNET_evaluate = $(TRAIN)/evaluate.py --weights $(OUT)/weights.safetensors --out $(OUT)/evaluation.json
LUNG_UNET_publish = $(TRAIN)/publish.py $(OUT) --date $(DATE) --machine "$(MACHINE)"

guard-table: $(STAMP)
	@test -n "$(DATA)" || { echo "Say where the series are: make guard-table DATA=/path/to/folder"; exit 1; }
	$(BIN)/python scripts/guard_table.py $(DATA) --out docs/guard.md $(ARGS)

verdicts: $(STAMP)
	@test -n "$(DATA)" || { echo "Say where the series are: make verdicts DATA=/path/to/folder"; exit 1; }
	$(BIN)/python scripts/verdicts.py $(DATA) $(if $(LABELS),--labels $(LABELS)) --out docs/verdicts.md $(ARGS)

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
