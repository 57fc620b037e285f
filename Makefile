PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check test-only test-long bench dashboards pictures clean

quickstart: .venv/installed
	$(BIN)/farm run quickstart

# everything that has to hold before a change lands
test: check test-only

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# two processes: what each compiles takes gigabytes
test-only: .venv/installed-dev
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile --no-loadscope-reorder

test-long: .venv/installed-dev
	$(BIN)/python -m pytest

bench: .venv/installed
	$(BIN)/farm bench

# after a change of dashboards/: tests compare the checked-in JSON with the code
dashboards: .venv/installed
	$(BIN)/python -m dashboards

# for README; needs npm, and Debian's prometheus and chromium: dashboards/pictures/README.md
pictures: .venv/installed dashboards/pictures/node_modules/installed
	$(BIN)/python dashboards/pictures/draw.py --theme light --theme dark

dashboards/pictures/node_modules/installed: dashboards/pictures/package.json
	cd dashboards/pictures && npm install --ignore-scripts --no-package-lock --no-audit --no-fund
	touch $@

clean:
	rm -rf .venv build *.egg-info dashboards/pictures/node_modules dashboards/pictures/out

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
