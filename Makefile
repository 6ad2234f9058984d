# `make demo` (train T2L on a local Ray and see it work), `make serve` (API and chat page) and `make test`.

PYTHON ?= python3
BIN := .venv/bin
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
TRITON := 3.9.0
export TOKENIZERS_PARALLELISM := false
export RAY_TRAIN_V2_ENABLED := 1
export RAY_USAGE_STATS_ENABLED := 0
export GRADIO_ANALYTICS_ENABLED := False
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo serve test test-slow bench bench-check install lint clean

demo: install
	$(BIN)/python jobs/demo.py

# API on 127.0.0.1:8000, chat page on 127.0.0.1:7860; ctrl-c ends both.
serve: install
	$(BIN)/python -m serve.ui & trap "kill $$!" EXIT; $(BIN)/serve run serve.app:deployment

test: install
	$(BIN)/python tests/lanes.py

# Every fault in one run, elastic workers, two nodes: minutes each.
test-slow: install
	T2L_SLOW=1 $(BIN)/python -m pytest tests/integration/test_faults.py tests/integration/test_elastic.py \
	  tests/integration/test_nodes.py

# Draw the committed results of benchmarks/ into the README.
bench: install
	$(BIN)/python benchmarks/draw.py

# Run the small benchmarks here, and hold their ratios to the committed ones.
bench-check: install
	$(BIN)/python benchmarks/check.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

install: $(BIN)/.installed

# Where there is no GPU, torch's CPU build: from the configured index, else from PyTorch's own. It brings no Triton, whose
# interpreter runs our kernels in the tests; builds for GPUs bring the one that they need.
$(BIN)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	if command -v nvidia-smi >/dev/null; then $(BIN)/pip install -q -c constraints.txt torch; else \
	  $(BIN)/pip install -q "torch==$(TORCH)+cpu" || \
	  $(BIN)/pip install -q --index-url https://download.pytorch.org/whl/cpu "torch==$(TORCH)"; \
	  $(BIN)/pip install -q "triton==$(TRITON)"; fi
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv runs
