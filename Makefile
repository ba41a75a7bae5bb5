# `make demo` and `make test` work on a fresh machine; the second time they install nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PAGE := $(VENV)/page
# Processes that run the tests, a file of them at a time.
JOBS ?= auto

.PHONY: demo test test-page lint install clean

demo: $(STAMP)
	$(BIN)/vlm demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# The pages need Gradio, and Gradio an older Pillow than the other tests' figures are of: an environment of its own that
# has that, and everything else from the first one.
test-page: $(PAGE)/.installed
	$(PAGE)/bin/python -m pytest tests/server/test_page.py tests/server/test_chat_page.py \
	  tests/server/test_chat_page_limits.py tests/server/test_combined_page.py \
	  tests/server/test_scratch.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "vlm needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1 || true) (choose one: make PYTHON=python3.12 ...)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

$(PAGE)/.installed: $(STAMP)
	$(PYTHON) -m venv $(PAGE)
	packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	  $(BIN)/python -c "$$packages" > "$$($(PAGE)/bin/python -c "$$packages")/beside.pth"
	$(PAGE)/bin/python -m pip install --quiet --disable-pip-version-check 'gradio>=6'
	@touch $@

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
