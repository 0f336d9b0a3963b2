# Every habit of the project. `make` alone lists them.
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed
# as an environment variable the constraints also hold where pip builds a package
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check
CONFIG ?= conf/thornton.yml
# BLAS threads beside Spark's task threads only get in each other's way
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-17s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found; install Python 3.11 or run: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up .venv (once, a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(PIP) -e '.[spark,dev]'
	@touch $@

.PHONY: setup
setup: $(INSTALLED) ## Create .venv from the pinned versions

.PHONY: java
java: $(INSTALLED)
	@$(BIN)/python -m coarse_spark.lake.java

.PHONY: run
run: java ## Run the main job (CONFIG=conf/thornton.yml) on local Spark and Delta
	@$(BIN)/coarse-spark run --config $(CONFIG)
ifeq ($(CONFIG),conf/thornton.yml)
	@echo "next:   make simulate, then make run CONFIG=conf/promotions.yml: a simulated promotion in which several treatments pay"
endif

.PHONY: simulate
simulate: java ## Write a simulated promotion of UNITS (20000) units for conf/promotions.yml
	@$(BIN)/coarse-spark simulate promotions --units $(or $(UNITS),20000) --out output/promotions-data

.PHONY: format
format: setup ## Format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: lint
lint: setup ## Format, lint, types, layers, documentation and safety, in seconds
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit -q -r coarse_spark jobs
	@$(BIN)/mkdocs build --strict --quiet
	@$(BIN)/pytest --durations=0 tests/test_safety.py

# side by side: Spark's tests wait for its driver most of the time, the others keep one core busy
.PHONY: test
test: lint java ## Lint, then every test but the long and the slow ones, ten minutes of it
	@$(MAKE) --no-print-directory --output-sync=line -j2 test-core test-spark

.PHONY: test-long
test-long: java ## The long tests, which CI runs after make test, a quarter of an hour of it
	@$(MAKE) --no-print-directory --output-sync=line -j2 test-core test-spark TESTS="long and not slow"

TESTS := not long and not slow

.PHONY: test-core
test-core: setup
	@$(BIN)/pytest -m "$(TESTS)" --ignore=tests/spark

.PHONY: test-spark
test-spark: java
	@$(BIN)/pytest -m "$(TESTS)" tests/spark

.PHONY: test-all
test-all: lint java ## Lint, then every test
	@$(BIN)/pytest

.PHONY: test-lowest
test-lowest: setup ## The lowest versions that pyproject.toml allows, in .venv-lowest: core tests
	@$(BIN)/python tests/matrix/lowest.py

.PHONY: test-matrix
test-matrix: java ## Every pair of Spark and Delta and Connect alone, in .venv-matrix, an hour of it
	@$(BIN)/python tests/matrix/matrix.py

.PHONY: test-fire
test-fire: java ## Kill processes of a cluster amid the tasks of runs, KILLS (5) times a step
	@COARSE_SPARK_KILLS=$(or $(KILLS),5) $(BIN)/pytest -s tests/spark/test_under_fire.py

.venv/.bench: $(INSTALLED)
	@$(PIP) -e '.[bench]'
	@touch $@

.PHONY: bench-fit
bench-fit: .venv/.bench ## Response learning beside EconML, one JSON object a line
	@$(BIN)/python tests/benchmarks/bench_fit.py
	@$(BIN)/python tests/benchmarks/bench_relative.py
	@$(BIN)/python tests/benchmarks/bench_rates.py

.PHONY: bench-coverage
bench-coverage: .venv/.bench ## Coverage of intervals by design, randomized or not, hours of it
	@$(BIN)/python tests/benchmarks/bench_coverage.py
	@$(BIN)/python tests/benchmarks/bench_confounded.py

.PHONY: bench-harm
bench-harm: .venv/.bench ## Policies on enterprise tables beside the best single treatment, hours of it
	@$(BIN)/python tests/benchmarks/bench_enterprise.py

.PHONY: bench-partitions
bench-partitions: java ## Models of 200 partitions through Spark beside the same fits bare in one process
	@$(BIN)/python tests/benchmarks/bench_partitions.py
	@$(BIN)/python tests/benchmarks/bench_partitions.py --partitions 12 --learner auto

.PHONY: bench-menu
bench-menu: setup ## Menus beside k-means, greedy and oracles, one JSON object a line
	@$(BIN)/python tests/benchmarks/bench_menu.py

.PHONY: bench-limits
bench-limits: setup ## A million units in three budgets beside a plain pass, 20,000 beside HiGHS on all
	@$(BIN)/python tests/benchmarks/bench_limits.py

.PHONY: bench-scale
bench-scale: java ## Menus and assignments of 1, 10 and 50 million units beside MLlib and plain Delta, hours of it
	@$(BIN)/python tests/benchmarks/bench_scale.py
	@$(BIN)/python tests/benchmarks/bench_scale.py --units 1000000 10000000 --largest 20 --arms 20

.PHONY: bench-run
bench-run: java ## A whole run of 1 million experiment rows and 10 million units, step by step, hours of it
	@$(BIN)/python tests/benchmarks/bench_run.py
	@$(BIN)/python tests/benchmarks/bench_run.py --rows 5000000 --units 1000000

.PHONY: bench-publish
bench-publish: java ## Contract and checks of 10 million assignments beside a plain Delta copy
	@$(BIN)/python tests/benchmarks/bench_publish.py

.PHONY: headline
headline: java ## What five treatments keep, on UNITS (200000) simulated units and real experiments, into docs/
	@$(BIN)/python tests/benchmarks/headline.py --units $(or $(UNITS),200000)

.PHONY: docs
docs: setup ## Build the pages of docs/ into output/site
	@$(BIN)/mkdocs build --strict --quiet
	@echo "output/site/index.html"

.PHONY: wheel
wheel: setup ## Build the wheel and the source package into dist/
	@$(BIN)/python -m build --no-isolation --outdir dist

PACKAGE := $(shell find coarse_spark -name '*.py' -o -name '*.j2') pyproject.toml

# a wheel is a zip file of the package; Spark puts it on the workers' path under this ending alone
dist/coarse_spark.zip: $(INSTALLED) $(PACKAGE)
	@rm -rf dist/zip
	@$(BIN)/python -m build --no-isolation --wheel --outdir dist/zip >/dev/null
	@mv dist/zip/*.whl $@ && rmdir dist/zip

.PHONY: zip
zip: dist/coarse_spark.zip ## Build dist/coarse_spark.zip, the package for spark-submit --py-files
	@echo "$<"

# changes when it is called with another prefix
.PHONY: force
dist/.python_prefix: force
	@mkdir -p dist
	@echo '$(PYTHON_PREFIX)' | cmp -s - $@ || echo '$(PYTHON_PREFIX)' > $@

# the package as it is installed, not as it is edited, and all that it needs but Spark
dist/coarse_spark_environment.tar.gz: $(INSTALLED) $(PACKAGE) constraints.txt dist/.python_prefix
	@rm -rf dist/environment $@
	@$(BIN)/python -m venv dist/environment
	@PIP_CONSTRAINT=constraints.txt dist/environment/bin/python -m pip install --quiet --disable-pip-version-check .
	@$(BIN)/python -m venv_pack --quiet --prefix dist/environment --output $@ $(if $(PYTHON_PREFIX),--python-prefix $(PYTHON_PREFIX))
	@rm -rf dist/environment

.PHONY: archive
archive: dist/coarse_spark_environment.tar.gz ## Pack package and libraries for spark-submit --archives (PYTHON_PREFIX of the workers)
	@echo "$<"

.PHONY: clean
clean: ## Remove what the targets made, except environments
	@rm -rf dist output spark-warehouse .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
