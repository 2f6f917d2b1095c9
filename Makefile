# The front door: `make run` measures a real model, `make check` runs every test; `make help` lists the rest.
# CMakeLists.txt does the building, scripts/ the longer steps; stamp files keep a second call fast.

export PYTHON ?= python3
PREFIX  ?= /usr/local
JOBS    ?= $(shell getconf _NPROCESSORS_ONLN)
DEMO     = models/SmolLM2-135M-Instruct.Q4_1.gguf
FALLBACK = synthetic:llama-3.2-1b-4bit
ARGS    ?= -np 512 -n 128 -r 5

# The compiler's own make must not inherit this one's flags.
BUILD = MAKEFLAGS= cmake --build build -j $(JOBS)

all: program ## build build/mlxbench (the default; installs nothing)
all: export NO_INSTALL = 1

run: program ## install what is missing, build, get the demo model, measure it (MODEL=..., ARGS="...")
	@MODEL="$(MODEL)" sh scripts/run.sh $(DEMO) $(FALLBACK) $(ARGS)

check: program .venv/.installed ## everything the tests need, then all tests
	@JOBS=$(JOBS) DEMO=$(DEMO) sh scripts/check.sh

bench: program ## mlxbench against llama.cpp and mlx-lm on the same shapes (ARGS of bench/bench.py: BENCH="...")
	@BENCH_PYTHON="$(BENCH_PYTHON)" sh bench/bench.sh $(BENCH)

install: program ## copy the program and its presets below PREFIX (/usr/local)
	cmake --install build --prefix $(PREFIX)

format: .venv/.installed ## lay out all C files as .clang-format says
	git ls-files -co --exclude-standard 'src/*.[ch]' 'tests/*.[ch]' | xargs .venv/bin/clang-format -i

clean: ## remove what was built (models/, results/ and .venv/ stay)
	rm -rf build build-asan build-tsan build-clang

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1#\2/p' Makefile | awk -F'#' '{ printf "%-14s %s\n", $$1, $$2 }'

program: build/Makefile
	@$(BUILD) --target mlxbench -- --no-print-directory -s

build/Makefile: | build/.packages
	cmake --preset release

build/.packages: scripts/install_packages.sh
	@sh scripts/install_packages.sh build
	@mkdir -p build && touch $@

.venv/.installed: tests/requirements.txt scripts/install_packages.sh
	@sh scripts/install_packages.sh check
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

.PHONY: all run check bench install format clean help program
