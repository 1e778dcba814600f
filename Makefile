# make demo            install, then open the app on the embedded model and run the whole loop in it
# make demo HEADLESS=1 the same loop without a screen
# make test            install, then every test
# make lint            ruff, strict types, import contracts
# make bench           ratios, measured in one run
# make torture         what takes minutes: links broken 15 times under a job of 100,000 lines
.PHONY: demo test lint bench torture
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
