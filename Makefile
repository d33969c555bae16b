# `make ticket` and `make test` set up all they need in .venv; nothing else has to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
MYPY := $(BIN)/mypy
TESTS := $(BIN)/pytest -n 2 --dist worksteal -m 'not evidence'
# The editable installation knows modules by name: what is new or has moved has to be installed again.
MODULES := $(shell mkdir -p build; find src -name '*.py' | sort > build/.modules.new; \
  cmp -s build/.modules.new build/.modules || cp build/.modules.new build/.modules; echo build/.modules)

.PHONY: help ticket test lint types unit evidence bench chaos sanitize oldest docs clean

help:
	@echo "make ticket    find a winning ticket on scikit-learn's digits; ticket, figures and report in runs/digits"
	@echo "make test      every check: formatting, lint, types, tests"
	@echo "make evidence  the slow scientific tests: orderings with intervals"
	@echo "make bench     speed against plain PyTorch and, for inference, other runtimes (installed in build/peers)"
	@echo "make chaos     kills, damaged files, faults and commands side by side; counts in docs/reliability.md"
	@echo "make sanitize  the compiled kernels' tests, of training and of inference, under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make oldest    the tests with the oldest dependencies that pyproject.toml allows, in .venv-oldest"
	@echo "make docs      write docs/command.md, docs/glossary.md and docs/result.md, and build the site in build/site"
	@echo "make clean     remove .venv, .venv-oldest and caches; runs/ stays"

$(READY): pyproject.toml constraints.txt CMakeLists.txt $(MODULES) $(wildcard src/winticket/*/kernels/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "winticket needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which to use: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

ticket: $(READY)
	$(BIN)/winticket find digits --store runs --out runs/digits
	@echo
	@echo "To use the command yourself: . $(BIN)/activate   (or type $(BIN)/winticket), then: winticket find --help"

# mypy takes a minute of one core, and the tests often wait; so they run side by side. What mypy found is printed last.
test: lint
	@$(MYPY) > build/types.txt 2>&1 & types=$$!; \
	echo "$(TESTS)"; $(TESTS); tests=$$?; \
	wait $$types; types=$$?; echo "$(MYPY)"; cat build/types.txt; exit $$((tests | types))

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(MYPY)

unit: $(READY)
	$(TESTS)

evidence: $(READY)
	$(BIN)/pytest -m evidence --durations=0

bench: $(READY)
	$(BIN)/python benchmarks/one_training.py
	$(BIN)/python benchmarks/step_by_density.py --compile
	$(BIN)/python benchmarks/layers.py
	$(BIN)/python benchmarks/break_even.py
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/pruning.py
	$(BIN)/python benchmarks/narrow.py
	$(BIN)/python benchmarks/shares.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/inference.py

chaos: $(READY)
	$(BIN)/python -m chaos --write

# The sanitizers' runtime has to be there before Python is; leaks are Python's own affair.
sanitize: $(READY)
	cmake -S . -B build/sanitize -DWINTICKET_SANITIZE=ON -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dnanobind_ROOT=$$($(BIN)/python -m nanobind --cmake_dir)
	cmake --build build/sanitize
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
	  WINTICKET_DRAWS=2000 $(BIN)/python tests/sparse/sanitized.py build/sanitize tests/sparse/test_products.py \
	  tests/sparse/test_windows.py tests/sparse/test_choices.py tests/sparse/test_chain.py tests/sparse/test_fuse.py \
	  tests/sparse/test_updates.py tests/ship/test_sparse_model.py tests/ship/test_drawn.py tests/ship/test_stress_drawn.py

# Built against the oldest nanobind too, hence without isolation. Old releases warn of what newer ones of their own
# dependencies deprecate, which is not ours to mend.
oldest:
	$(PYTHON) -m venv --clear .venv-oldest
	mkdir -p build && $(PYTHON) tools/oldest.py > build/oldest.txt
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check --constraint build/oldest.txt scikit-build-core nanobind
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check --constraint build/oldest.txt --no-build-isolation \
	  --config-settings build-dir=build/oldest --editable '.[dev]'
	.venv-oldest/bin/pytest -n 2 -m "not evidence" -W ignore::DeprecationWarning

docs: $(READY)
	$(BIN)/typer winticket.cli utils docs --name winticket --title "The winticket command" --output docs/command.md
	$(BIN)/python tools/glossary.py > docs/glossary.md
	$(BIN)/python -m tools.result_page
	$(BIN)/python -m tools.site.gallery
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "The site: build/site/index.html"

clean:
	rm -rf .venv .venv-oldest .pytest_cache .mypy_cache .ruff_cache .hypothesis
