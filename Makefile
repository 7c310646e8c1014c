# Two commands on a fresh machine: `make demo` (faces in minutes) and `make test`.

PYTHON ?= python3
RANKS ?=
DEMO_IMAGES ?= 4096
ROUNDS ?= 1
VENV := .venv
BIN := $(VENV)/bin
# Some containers forbid Python to keep its bytecode: then torch costs every process four seconds more.
export PYTHONDONTWRITEBYTECODE :=
SIGNALS := SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2

.PHONY: demo test bench faults check clean help

help: ## what can be made
	@sed -nE 's|^\$$\(VENV\)|$(VENV)|; s|^([a-z./-]+):.*## |\1\t|p' $(MAKEFILE_LIST) | expand -t 13

# The packages are written without bytecode: compiling 6 GB ahead of use takes longer than it saves.
$(VENV)/ready: pyproject.toml constraints.txt ## only the environment, in .venv; demo makes it too
	@echo "== environment: about 3 GB to download and 6 GB on disk, two to four minutes =="
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dali,dev,after,sources,ray]'
	@touch $@

demo: $(VENV)/ready ## drawn faces, shards, and a DCGAN on 2 ranks or all GPUs (or RANKS=N), in minutes
	@echo "== $(DEMO_IMAGES) drawn faces =="
	$(BIN)/python -m data_prep.synthetic --out data/synthetic --num-images $(DEMO_IMAGES) --seed 0
	@echo "== shards =="
	$(BIN)/python -m data_prep.celeba --source data/synthetic --out data/synthetic-all --split all --samples-per-shard 512
	@gpus=0; if command -v nvidia-smi >/dev/null; then \
		gpus=$$($(BIN)/python -c 'import torch; print(torch.cuda.device_count())'); fi; ranks=$(RANKS); \
	if [ "$$gpus" -gt 0 ]; then config=configs/demo_gpu.yaml; ranks=$${ranks:-$$gpus}; \
	else config=configs/demo.yaml; ranks=$${ranks:-2}; fi && \
	echo "== training on $$ranks rank(s), $$config ==" && \
	$(BIN)/torchrun --standalone --nproc_per_node $$ranks --signals-to-handle $(SIGNALS) \
		-m dcgan_dist.train --config $$config

test: $(VENV)/ready ## the whole test suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/ready ## the tutorial's way, pytorch/examples' way and ours, measured in turns on this machine
	$(BIN)/python -m benchmarks $(BENCH)

faults: $(VENV)/ready ## kills, hangs and damages runs in every way, ROUNDS=1 times each; half an hour a round
	$(BIN)/python -m tests.faults --rounds $(ROUNDS)

check: $(VENV)/ready ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

clean: ## removes the demo's data and run
	rm -rf data/synthetic data/synthetic-all runs/demo
