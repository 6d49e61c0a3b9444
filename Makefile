# Everything that a fresh machine needs is behind these targets. Written for GNU make 3.81 and later (Linux and macOS).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := .[dashboard,demo,flower,hospital-privacy,mlflow,onnx,postgresql,tensorboard,dev]
# Torch pins these itself, for the one platform that has them; and a suffix such as +cpu names one build of a version.
FREEZE = pip freeze --exclude-editable | sed -E 's/[+][A-Za-z0-9.]+$$//' | grep -vE '^(nvidia-|cuda-|triton)' | LC_ALL=C sort -f

.DEFAULT_GOAL := help
.PHONY: help install demo test slow audit servers chaos soak check format lock diagram clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## four hospitals on synthetic notes, with baselines: a report in runs/
	$(BIN)/fednotes compare

test: check ## make check, then the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

slow: $(INSTALLED) ## simulations that are killed at many instants, and on Flower's engine in private (ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --timeout 1200 tests

audit: $(INSTALLED) ## attack private training: canaries, coins, words (six minutes; what is proved is printed)
	$(BIN)/python -m pytest -s --timeout 1800 tests/audits/audit_*.py

servers: $(INSTALLED) ## studies over real servers that take longer: refused and failing sites, stops, nginx if installed (ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --timeout 1800 tests/deployment/servers_*.py

chaos: $(INSTALLED) ## kill anything: what happens to real servers and sites (half an hour; costs are printed)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s --timeout 3600 tests/chaos/chaos_faults.py

soak: $(INSTALLED) ## rounds for MINUTES=10: does anything grow?
	OMP_NUM_THREADS=1 MINUTES=$(or $(MINUTES),10) $(BIN)/python -m pytest -s --timeout 0 tests/chaos/chaos_soak.py

check: $(INSTALLED) ## lint, format, types and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

install: $(INSTALLED) ## make .venv and install the pinned versions (the targets above do it as needed)

format: $(INSTALLED) ## format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## renew constraints.txt: the newest versions that pyproject.toml allows
	@set -e; $(FIND_PYTHON); scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	"$$python" -m venv "$$scratch/venv"; \
	"$$scratch/venv/bin/python" -m pip install -q -e "$(EXTRAS)"; \
	{ echo "# Exact versions of everything that is installed, for Linux and macOS. Renew with: make lock"; \
	  "$$scratch/venv/bin/python" -m $(FREEZE); } > "$$scratch/constraints.txt"; \
	cp "$$scratch/constraints.txt" constraints.txt

diagram: docs/architecture.svg ## draw docs/architecture.svg from its text (needs Graphviz)

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

docs/architecture.svg: docs/architecture.dot
	dot -Tsvg $< -o $@

# The first Python that is new enough; a .venv without pip is what an interrupted run left.
FIND_PYTHON = python=; for candidate in "$(PYTHON)" python3.14 python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Fednotes needs Python 3.11 or newer; $(PYTHON) is older or missing. Name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi

$(INSTALLED): pyproject.toml constraints.txt
	@set -e; if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then $(FIND_PYTHON); rm -rf $(VENV); "$$python" -m venv $(VENV); fi
	@echo "Installing the pinned versions (once; some minutes)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e "$(EXTRAS)"
	@touch $@
