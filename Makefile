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
.PHONY: help book test lint types unit pages test-oldest dist launch bench widget-speed serve notebooks lab links \
	zoo publish colab binder new-chapter hooks clean

help:
	@echo 'make book       build the book into _build/html, running every chapter; warnings are errors'
	@echo 'make test       lint, types, unit tests, notebooks and pages'
	@echo 'make test-oldest  run the unit tests with the lowest versions that pyproject.toml names'
	@echo 'make dist       build wheel and source, check both, and install the wheel with the oldest and newest versions'
	@echo 'make launch     run every notebook from the wheel with the versions of a notebook service, within 2 GB'
	@echo 'make bench      measure the layer beside batch normalisation, and the widgets; some 10 minutes'
	@echo 'make widget-speed  measure the widgets of the built book in a browser'
	@echo 'make serve      show the book on http://127.0.0.1:8000'
	@echo 'make notebooks  write the chapters as notebooks to _build/notebooks, without building the book'
	@echo 'make lab        open the chapters as notebooks in JupyterLab'
	@echo 'make new-chapter NAME=my-chapter   begin a chapter: book/my-chapter.md'
	@echo 'make hooks      check every commit as make test does'
	@echo 'make zoo        convert networks of other packages; some two hours'
	@echo 'make links      follow the links to other sites'
	@echo 'make publish    push the built book to the branch gh-pages'
	@echo 'make clean      remove what was built, and the environment'

# torch and torchvision resolve together; UV_TORCH_BACKEND=cpu (or cu128, ...) picks another build of both.
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --compile-bytecode --requirements requirements.txt --editable '.[test]'
	touch $@

# Executed chapters are cached by their own text alone, so that a change of ndlib must empty the cache. The chapters are
# executed with the wheel, in _build/wheel; everything else works with the checkout.
_build/.executed-with: $(SOURCES) $(READY)
	rm -rf _build/.jupyter_cache _build/wheel _build/html/.doctrees _build/.doctrees
	mkdir -p _build
	touch $@

book: $(READY) _build/.executed-with
	$(BIN)/python book/_ext/execute.py
	$(BIN)/jupyter-book build -W -n --keep-going .

test: lint types unit pages

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --ignore tests/book

pages: book
	$(BIN)/python tests/book/chromium.py
	$(BIN)/pytest --numprocesses auto tests/book

# In an environment of their own. What old releases of other packages say of their own future is no concern of ours.
test-oldest: $(READY)
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) _build/oldest
	VIRTUAL_ENV=_build/oldest $(BIN)/uv pip install --resolution lowest-direct --editable '.[book]'
	VIRTUAL_ENV=_build/oldest $(BIN)/uv pip install --editable '.[book,test]'
	OMP_NUM_THREADS=1 _build/oldest/bin/python -m pytest --numprocesses auto -W ignore::DeprecationWarning \
		--ignore tests/book

dist: $(READY)
	rm -rf _build/dist
	$(BIN)/python -m build --outdir _build/dist .
	$(BIN)/uv tool run twine check --strict _build/dist/*
	$(BIN)/uv tool run check-wheel-contents _build/dist/*.whl
	for resolution in lowest-direct highest; do \
		$(BIN)/uv venv --quiet --clear --python $(PYTHON) _build/clean && \
		$(BIN)/uv pip compile --quiet --python _build/clean --resolution $$resolution --extra book pyproject.toml \
			--output-file _build/versions.txt && \
		VIRTUAL_ENV=_build/clean $(BIN)/uv pip install --constraint _build/versions.txt \
			"network-deconvolution[book] @ file://$$(echo '$(CURDIR)'/_build/dist/*.whl)" && \
		(cd _build/clean && bin/python -I '$(CURDIR)/.ci/try_wheel.py') || exit 1; \
	done

# Colab's versions: the oldest torch that it is known to run, and the ipywidgets that it pins.
launch: dist notebooks
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) _build/service
	VIRTUAL_ENV=_build/service $(BIN)/uv pip install 'torch==2.9.*' 'ipywidgets==7.7.*' ipykernel \
		"network-deconvolution[book] @ file://$$(echo '$(CURDIR)'/_build/dist/*.whl)"
	$(BIN)/python .ci/launch.py _build/service _build/notebooks/*.ipynb

bench: widget-speed
	$(BIN)/python -m ndlib bench --rounds 3

widget-speed: book
	$(BIN)/python tests/book/chromium.py
	$(BIN)/python tests/book/widget_speed.py

serve: book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

notebooks: $(READY)
	$(BIN)/python book/_ext/notebooks.py _build/notebooks

lab: notebooks
	$(BIN)/jupyter lab --ip 127.0.0.1 _build/notebooks

new-chapter:
	@test -n '$(NAME)' || { echo 'make new-chapter NAME=my-chapter' >&2; exit 1; }
	@test ! -e 'book/$(NAME).md' || { echo 'book/$(NAME).md is there already' >&2; exit 1; }
	@cp book/_template.md 'book/$(NAME).md'
	@echo 'Begun: book/$(NAME).md. Add "- file: book/$(NAME)" to _toc.yml, then: make book'

hooks: $(READY)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install pre-commit
	$(BIN)/pre-commit install --hook-type pre-commit --hook-type pre-push

links: book
	$(BIN)/jupyter-book build --builder linkcheck .

publish:
	.ci/publish

# The published notebooks, checked out to published/, in the image that Colab runs. They may write nothing beside them.
colab:
	docker run --rm --entrypoint bash --volume '$(CURDIR)/published/notebooks:/notebooks:ro' \
		--volume '$(CURDIR)/.ci:/ci:ro' us-docker.pkg.dev/colab-images/public/runtime:latest \
		-c 'bash /ci/colab /notebooks/*.ipynb'

# Binder's image, from what is committed, and all chapters in it with the memory that Binder gives.
binder:
	rm -rf _build/binder && mkdir -p _build/binder
	git archive HEAD | tar -x -C _build/binder
	$(PYTHON) -m venv _build/repo2docker
	_build/repo2docker/bin/pip install --quiet jupyter-repo2docker
	_build/repo2docker/bin/repo2docker --no-run --image-name network-deconvolution-binder _build/binder
	docker run --rm --memory 2g --memory-swap 2g network-deconvolution-binder \
		bash -c 'jupyter execute --timeout=900 notebooks/*.ipynb'

# Whether conversion still works on today's networks of other packages; fails if one that did now does not.
zoo:
	$(PYTHON) -m venv _build/zoo
	_build/zoo/bin/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=_build/zoo _build/zoo/bin/uv pip install --editable '.[zoo]'
	_build/zoo/bin/ndlib zoo $(addprefix --family ,$(FAMILY)) --file _build/zoo.jsonl --compare data/zoo.jsonl

clean:
	rm -rf _build $(VENV)
