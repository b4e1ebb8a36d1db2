# Everything runs in one environment, .venv, made on first use from pyproject.toml and constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-gpu lint bench golden clean

demo: .venv/ready
	$(BIN)/python examples/demo.py

# Small models gain nothing from threads, and lose much where cores are shared; two processes use two cores.
test: export OMP_NUM_THREADS = 1
test: .venv/ready lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow

# With triton installed; without a GPU it runs in Triton's interpreter.
test-gpu: .venv/ready
	$(BIN)/python -m pytest -o addopts="" tests/gpu

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready .venv-peers/ready
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/quantize.py

# ModelOpt and compressed-tensors need an older transformers, so the peers live in an environment of their own.
golden: .venv-peers/ready
	.venv-peers/bin/python tests/golden/record.py vectors
	.venv-peers/bin/python tests/golden/record.py tiny-glm --checkpoint examples/tiny-glm

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

.venv-peers/ready: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q "torch==2.13.0"
	.venv-peers/bin/python -m pip install -q -r benchmarks/peers/requirements.txt
	touch $@

# llm-compressor and ModelOpt cannot share one: their transformers and compressed-tensors differ.
.venv-llmcompressor/ready: benchmarks/peers/requirements-llmcompressor.txt
	$(PYTHON) -m venv .venv-llmcompressor
	.venv-llmcompressor/bin/python -m pip install -q "torch==2.13.0"
	.venv-llmcompressor/bin/python -m pip install -q -r benchmarks/peers/requirements-llmcompressor.txt
	touch $@

clean:
	rm -rf .venv .venv-peers .venv-llmcompressor demo-output
