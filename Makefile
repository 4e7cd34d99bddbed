# imgtool: `make demo` and `make test` are the two commands of the README.
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: setup demo test test-long boot-matrix lint deb dist reference bench clean
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

deb: setup ## dist/imgtool_VERSION_ARCH.deb
	@packaging/deb/build

dist: setup ## a wheel and an sdist, in dist
	$(BIN)/python -m build --outdir dist .

reference: setup ## docs/man and docs/reference, written from the code
	$(BIN)/python -m reference

bench: setup ## benchmarks; writes bench/RESULTS.md
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info
