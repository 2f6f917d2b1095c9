# The front door: `make run` measures a real model, `make check` runs every test; `make help` lists
# the rest. CMakeLists.txt does the building, scripts/ the longer steps; stamp files keep a second
# call fast.

export PYTHON ?= python3
export JOBS   ?= $(shell getconf _NPROCESSORS_ONLN)
export DEMO    = models/SmolLM2-135M-Instruct.Q4_1.gguf
PREFIX ?= /usr/local
ARGS   ?= -np 512 -n 128 -r 7
TARGETS ?= macos-arm64 macos-x64 linux-x64 linux-arm64
# A Python that has bench/requirements.txt already; without one, `make bench` makes .venv-bench/.
BENCH_PYTHON ?=

all: program ## build build/mlxbench (installs nothing: says what is missing)
all: export NO_INSTALL = 1

run: build/.packages-run build/.mlx program ## install what is missing, build, measure the demo model (MODEL=..., ARGS="-np 512 -n 128 -r 7")
	@MODEL="$(MODEL)" sh scripts/run.sh $(ARGS)

check: build/.packages-check .venv/.installed ## install what the tests need and run all of them (QUICK=1: the short way; FULL=1: hours)
	@QUICK="$(QUICK)" FULL="$(FULL)" sh scripts/check.sh

perplexity: program $(if $(BENCH_PYTHON),,.venv-bench/.installed) ## what rounding activations costs (PERPLEXITY="--help")
	@$(or $(BENCH_PYTHON),.venv-bench/bin/python) bench/perplexity.py $(PERPLEXITY)

bench: program $(if $(BENCH_PYTHON),,.venv-bench/.installed) ## mlxbench against its peers, in turn (BENCH="--help")
	@$(or $(BENCH_PYTHON),.venv-bench/bin/python) bench/bench.py $(BENCH)

install: program ## copy the program, the engine mlx and the presets below PREFIX (/usr/local)
	@cmake --install build --prefix "$(PREFIX)" >build/install.log || { tail build/install.log; exit 1; }
	@echo "mlxbench: installed as $(DESTDIR)$(PREFIX)/bin/mlxbench (make uninstall removes it)"

uninstall: ## remove what make install put below PREFIX
	rm -rf "$(DESTDIR)$(PREFIX)/bin/mlxbench" "$(DESTDIR)$(PREFIX)/lib/mlxbench" "$(DESTDIR)$(PREFIX)/share/mlxbench" \
	    "$(DESTDIR)$(PREFIX)/share/man/man1/mlxbench.1" "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/mlxbench" \
	    "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_mlxbench" "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/mlxbench.fish"

cross: ## build for macOS (Apple and Intel) and Linux with glibc 2.28 (x86-64, ARM), and check it (TARGETS="macos-arm64 ...")
	@sh scripts/cross/build.sh $(TARGETS)

wheels: build/.packages-run build/.mlx program ## Python wheels in dist/ for macOS (Apple) and Linux (x86-64, ARM), tested in an empty environment
	@sh scripts/wheels.sh

deb: ## a Debian package in dist/, judged by lintian
	@sh scripts/deb.sh

format: .venv/.installed ## lay out all C files as .clang-format says, and wrap comments
	git ls-files -co --exclude-standard '*.[ch]' '*.[ch]pp' | xargs .venv/bin/clang-format -i
	.venv/bin/python scripts/wrap.py

clean: ## remove what was built (models/, results/, .mlx/ and .venv/ stay)
	rm -rf build build-*

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1#\2/p' Makefile | awk -F'#' '{ printf "make %-10s %s\n", $$1, $$2 }'

# cmake's own make must not inherit this one's flags.
program: build/Makefile
	@sh scripts/step.sh "building build/mlxbench$$([ -x build/mlxbench ] || echo ', which takes minutes')" \
	    env MAKEFLAGS= cmake --build build -j $(JOBS) --target mlxbench -- --no-print-directory -s

build/Makefile: | build/.packages-build
	@sh scripts/step.sh "preparing the build in build/" cmake --preset release

build/.packages-build build/.packages-run build/.packages-check build/.packages-bench: scripts/install_packages.sh
	@sh scripts/install_packages.sh $(@F:.packages-%=%)
	@mkdir -p build && touch $@

# MLX for the engine mlx. Without it (one line says why) all else is built, and the next call tries
# again. CMake looks for it when it is run anew.
build/.mlx: cmake/mlx.cmake scripts/get_mlx.py | build/.packages-run
	@if $(PYTHON) scripts/get_mlx.py .mlx; then rm -f build/Makefile; touch $@; fi

.venv/.installed: tests/requirements.txt cmake/mlx.cmake | build/.packages-check
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mlxbench: make check needs Python 3.11 or later, \
	for numpy and mlx-lm; this is %d.%d. make check PYTHON=... takes another" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $< "$$($(PYTHON) scripts/get_mlx.py --requirement)"
	@touch $@

# Without pip's cache, which may hold a llama.cpp that was compiled for another processor.
.venv-bench/.installed: bench/requirements.txt cmake/mlx.cmake | build/.packages-bench
	$(PYTHON) -m venv --clear .venv-bench
	CMAKE_ARGS=-DGGML_NATIVE=ON .venv-bench/bin/python -m pip install --no-cache-dir --disable-pip-version-check -r $< \
	    "$$($(PYTHON) scripts/get_mlx.py --requirement cpu)"
	@touch $@

# Two steps at a time would fight over the package manager; each step uses all cores by itself.
.NOTPARALLEL:
.PHONY: all run check bench cross wheels deb perplexity install uninstall format clean help program
