# Targets: say, test, test-browser, test-peer, test-ray, lint, clean. Needs Python 3.11+, gcc and a package index; all goes
# into .venv.
SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
VENV := .venv
PEER := .venv-peer
WHISPER := .venv-whisperspeech
PY := $(VENV)/bin/python
PIP := $(VENV)/bin/pip install -qq --disable-pip-version-check
WORKERS ?= 2
TEXT ?= The quick brown fox jumps over the lazy dog.
OUT ?= out.wav

# one thread a worker: two OpenMP teams on two cores get into each other's way
export OMP_NUM_THREADS := 1

.PHONY: say test test-browser test-peer test-ray lint clean
.DELETE_ON_ERROR:

$(VENV)/.created: requirements/torch.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/torch.txt
	touch $@

$(VENV)/.package: $(VENV)/.created pyproject.toml $(wildcard spear_spec/kernels/*.[ch])
	$(PIP) --editable .
	touch $@

$(VENV)/.tests: $(VENV)/.package requirements/judges.txt requirements/judges-nodeps.txt
	$(PIP) --editable '.[test,train,eval,serve,books,hub,speed]' -r requirements/judges.txt
	$(PIP) --no-deps -r requirements/judges-nodeps.txt
	touch $@

# an argument with an apostrophe reaches the program through the environment, not through the shell's quoting
say: export SAY_TEXT = $(TEXT)
say: $(VENV)/.package
	@printf '%s' "$$SAY_TEXT" | env -u OMP_NUM_THREADS $(VENV)/bin/spear-spec say - -o "$(OUT)"
	@echo "spoken to $(abspath $(OUT))"

lint: $(VENV)/.tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

test: lint
	$(PY) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore=tests/peer --ignore=tests/browser --ignore=tests/ray

# the real spear-tts-pytorch, in an environment of its own: its extra pulls in a great deal
$(PEER)/.created: requirements/torch.txt pyproject.toml
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/pip install -qq --disable-pip-version-check -r requirements/torch.txt
	$(PEER)/bin/pip install -qq --disable-pip-version-check --editable '.[lucidrains]' pytest hypothesis
	touch $@

# the real WhisperSpeech, in another one: without most of what it names
$(WHISPER)/.created: requirements/torch.txt requirements/whisperspeech.txt pyproject.toml
	$(PYTHON) -m venv $(WHISPER)
	$(WHISPER)/bin/pip install -qq --disable-pip-version-check -r requirements/torch.txt
	$(WHISPER)/bin/pip install -qq --disable-pip-version-check --editable . huggingface_hub pytest
	$(WHISPER)/bin/pip install -qq --disable-pip-version-check --no-deps -r requirements/whisperspeech.txt
	touch $@

test-peer: $(PEER)/.created $(WHISPER)/.created
	$(PEER)/bin/python -m pytest -q tests/peer --ignore=tests/peer/test_whisperspeech_live.py
	$(WHISPER)/bin/python -m pytest -q tests/peer/test_whisperspeech_live.py

# the page in a real browser. Chromium comes from the system, axe-core (MPL-2.0, used here alone) from npm's registry
CHROMIUM ?= $(firstword $(foreach p,chromium chromium-browser google-chrome,$(shell command -v $(p) 2>/dev/null)))
AXE := .venv-axe

$(VENV)/.browser: $(VENV)/.package pyproject.toml
	$(PIP) --editable '.[test,serve,browser]'
	touch $@

$(AXE)/node_modules/axe-core/axe.min.js:
	@command -v npm > /dev/null || { echo "make test-browser needs npm, for axe-core: apt-get install npm" >&2; exit 2; }
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(AXE) axe-core@4.14.1

test-browser: $(VENV)/.browser $(AXE)/node_modules/axe-core/axe.min.js
	@test -n "$(CHROMIUM)" || { echo "make test-browser needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it" >&2; exit 2; }
	CHROMIUM=$(CHROMIUM) AXE=$(AXE)/node_modules/axe-core/axe.min.js $(PY) -m pytest -q tests/browser

# a Ray cluster of this machine, whose workers and head are killed; sockets lie in the folder, so its path must be short
test-ray: $(VENV)/.tests
	$(PIP) --editable '.[serve,ray]'
	RAY_TMPDIR=$${RAY_TMPDIR:-/tmp} $(PY) -m pytest -q tests/ray

clean:
	rm -rf $(VENV) $(PEER) $(WHISPER) $(AXE) build *.egg-info spear_spec/kernels/*.so .pytest_cache .mypy_cache .ruff_cache
