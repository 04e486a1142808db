# make book: build the book into _build/html.   make test: check everything.   make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := $(shell find ndlib data -type f -not -path '*/__pycache__/*')

# Threads that wait spin for microseconds only: on a busy machine a chapter otherwise takes five times as long. (Not at
# all, OMP_WAIT_POLICY=PASSIVE, would make an eigendecomposition take four times as long.)
export GOMP_SPINCOUNT ?= 10000

.DELETE_ON_ERROR:
.PHONY: help book test lint types unit pages bench widget-speed serve notebooks lab clean

help:
	@echo 'make book       build the book into _build/html, running every chapter; warnings are errors'
	@echo 'make test       lint, types, unit tests, notebooks and pages'
	@echo 'make bench      measure the layer beside batch normalisation, and the widgets; some 10 minutes'
	@echo 'make widget-speed  measure the widgets of the built book in a browser'
	@echo 'make serve      show the book on http://127.0.0.1:8000'
	@echo 'make lab        open the chapters as notebooks in JupyterLab'
	@echo 'make clean      remove what was built, and the environment'

# torch and torchvision resolve together; UV_TORCH_BACKEND=cpu (or cu128, ...) picks another build of both.
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --compile-bytecode --requirements requirements.txt --editable '.[test]'
	touch $@

# Executed chapters are cached by their own text alone, so that a change of ndlib must empty the cache.
_build/.executed-with: $(SOURCES) $(READY)
	rm -rf _build/.jupyter_cache _build/html/.doctrees _build/.doctrees
	mkdir -p _build
	touch $@

book: $(READY) _build/.executed-with
	$(BIN)/jupyter-book build -W -n --keep-going .

test: lint types unit pages

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest --ignore tests/book

pages: book
	$(BIN)/python tests/book/chromium.py
	$(BIN)/pytest tests/book

bench: widget-speed
	$(BIN)/python -m ndlib bench --rounds 3

widget-speed: book
	$(BIN)/python tests/book/chromium.py
	$(BIN)/python tests/book/widget_speed.py

serve: book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

notebooks: $(READY)
	mkdir -p _build/notebooks
	for chapter in $$(grep -l '^kernelspec:' book/*.md); do \
		$(BIN)/jupytext --quiet --to ipynb --output _build/notebooks/$$(basename $$chapter .md).ipynb $$chapter || exit 1; \
	done

lab: notebooks
	$(BIN)/jupyter lab --ip 127.0.0.1 _build/notebooks

clean:
	rm -rf _build $(VENV)
