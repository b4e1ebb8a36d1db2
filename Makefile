# `make demo` has a light environment of its own, .venv-demo, without torch; everything else runs in .venv. Each is made
# on first use from a lock file of its own; by uv where it is installed, by pip where not.
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2> /dev/null)

# What is imported is compiled at its first import: all of it takes longer to compile than to install.
unexport PYTHONDONTWRITEBYTECODE

# The pip that Python brings may be years old, and then takes minutes to read an index.
ifdef UV
make_venv = uv venv -q --clear --python $(PYTHON) $(1)
install = VIRTUAL_ENV=$(1) uv pip install -q
else
make_venv = $(PYTHON) -m venv $(1) && $(1)/bin/python -m pip install -q --upgrade pip
install = $(1)/bin/python -m pip install -q --no-compile
endif

# The site, build/site: pages of docs/ and a reference made from the code.
.PHONY: docs
docs: .venv/ready
	$(BIN)/python -m mkdocs build -q

.PHONY: demo demo-full test tests test-slow test-gpu lint bench golden clean

demo: .venv-demo/ready
	.venv-demo/bin/python examples/demo.py

demo-full: .venv/ready
	$(BIN)/python examples/demo.py --full

test: .venv/ready
	$(MAKE) -j 2 lint tests

# Small models gain nothing from threads, and lose much where cores are shared. Three processes use two cores: many
# tests wait for a server or a child.
tests: export OMP_NUM_THREADS = 1
tests: .venv/ready
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: .venv/ready .venv-olah/ready
	$(BIN)/python -m pytest -m slow

# With triton installed; without a GPU it runs in Triton's interpreter.
test-gpu: .venv/ready
	$(BIN)/python -m pytest -o addopts="" tests/gpu

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready .venv-peers/ready
	$(BIN)/python -m benchmarks.quantize.encode
	$(BIN)/python -m benchmarks.quantize.quantize

# ModelOpt and compressed-tensors need an older transformers, so the peers live in an environment of their own.
golden: .venv-peers/ready
	.venv-peers/bin/python tests/golden/record.py vectors
	.venv-peers/bin/python tests/golden/record.py tiny-glm --checkpoint examples/tiny-glm

# Both lock files are whole (tests/documents/test_locks.py), so nothing is left to resolve.
.venv-demo/ready: pyproject.toml constraints-demo.txt
	$(call make_venv,.venv-demo)
	$(call install,.venv-demo) --no-deps -r constraints-demo.txt -e .
	touch $@

.venv/ready: pyproject.toml constraints.txt
	$(call make_venv,.venv)
	$(call install,.venv) --no-deps -r constraints.txt -e .
	touch $@

# A mirror of the hub, which wants an older psutil.
.venv-olah/ready:
	$(call make_venv,.venv-olah)
	$(call install,.venv-olah) "olah==0.5.4"
	touch $@

.venv-peers/ready: benchmarks/peers/requirements.txt
	$(call make_venv,.venv-peers)
	$(call install,.venv-peers) "torch==2.13.0"
	$(call install,.venv-peers) -r benchmarks/peers/requirements.txt
	touch $@

# llm-compressor and ModelOpt cannot share one: their transformers and compressed-tensors differ.
.venv-llmcompressor/ready: benchmarks/peers/requirements-llmcompressor.txt
	$(call make_venv,.venv-llmcompressor)
	$(call install,.venv-llmcompressor) "torch==2.13.0"
	$(call install,.venv-llmcompressor) -r benchmarks/peers/requirements-llmcompressor.txt
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-peers .venv-olah .venv-llmcompressor demo-output
