# imgtool: `make demo` and `make test` are the two commands of the README.
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: setup demo test test-long boot-matrix lint reference bench docs clean
.DEFAULT_GOAL := setup

setup: ## system packages that are missing, .venv, imgtool in it
	@tools/setup

demo: setup ## a real Debian disk: VMDK to thick QCOW2, checked, compared, booted (NO_BOOT=1: not booted)
	@tools/demo $(if $(NO_BOOT),,--boot)

test: setup ## the suite that CI runs
	$(PYTEST) -n 2 --dist worksteal -m "not long and not boot_matrix" $(ARGS)

test-long: setup ## what needs longer
	$(PYTEST) -n 2 --dist worksteal -m long $(ARGS)

boot-matrix: setup ## guests moved in all six directions, booted before and after: 40 minutes
	$(PYTEST) -n 1 -m boot_matrix $(ARGS)

lint: setup
	$(BIN)/ruff check imgtool tests fixtures bench reference
	$(BIN)/mypy

reference: setup ## docs/man and docs/reference, written from the code
	$(BIN)/python -m reference

bench: setup ## benchmarks; writes bench/RESULTS.md
	$(BIN)/python -m bench $(ARGS)

docs: setup ## the documents as a site, build/site; links and anchors are checked
	@$(BIN)/python -c 'import material' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info
