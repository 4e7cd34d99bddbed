# imgtool: `make demo` and `make test` are the two commands of the README.
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: setup demo test test-long boot-matrix lint deb dist reference bench docs fuzz soak mutants coverage clean
.DEFAULT_GOAL := setup

setup: ## system packages that are missing, .venv, imgtool in it
	@tools/setup

demo: setup ## a real Debian disk: VMDK to thick QCOW2, checked, compared, booted (NO_BOOT=1: not booted)
	@tools/demo $(if $(NO_BOOT),,--boot)

test: setup ## the suite that CI runs
	$(PYTEST) -n 4 --dist worksteal -m "not long and not boot_matrix" $(ARGS)

test-long: setup ## what needs longer
	$(PYTEST) -n 2 --dist worksteal -m long $(ARGS)

boot-matrix: setup ## guests moved in all six directions, booted before and after: 40 minutes
	$(PYTEST) -n 1 -m boot_matrix $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

deb: setup ## dist/imgtool_VERSION_ARCH.deb
	@packaging/deb/build

dist: setup ## a wheel and an sdist, in dist
	$(BIN)/python -m build --outdir dist .

reference: setup ## docs/man and docs/reference, written from the code
	$(BIN)/python -m tools.reference

bench: setup ## benchmarks; writes bench/RESULTS.md
	$(BIN)/python -m bench $(ARGS)

docs: setup ## the documents as a site, build/site; links and anchors are checked
	@$(BIN)/python -c 'import material' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

fuzz: setup ## every reader of foreign bytes, SECONDS (600) in all
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tools.fuzz all --seconds $(or $(SECONDS),600) $(ARGS)

soak: setup ## random conversions and migrations, kills and faults, all of it verified, MINUTES (60)
	$(BIN)/python -m tools.soak --minutes $(or $(MINUTES),60) $(ARGS)

mutants: setup ## do the fast tests notice a changed program? MINUTES (30)
	$(BIN)/python -m tools.mutation --minutes $(or $(MINUTES),30) $(ARGS)

coverage: export COVERAGE_FILE := $(CURDIR)/build/coverage/data
coverage: setup ## lines and branches that no test reaches; ARGS: which tests
	@rm -rf build/coverage && mkdir -p build && mkdir -m 1777 build/coverage
	$(BIN)/coverage run -m pytest -n 3 --dist worksteal $(or $(ARGS),-m "not long and not boot_matrix"); code=$$?; \
	$(BIN)/coverage combine --quiet; $(BIN)/coverage report > build/coverage/report.txt; tail -1 build/coverage/report.txt; exit $$code

clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info
