# make demo   a first cited answer, from nothing; see README.md
# make test   every check that a change has to pass; make lint and make test-llm are parts of it
# make bench DATA=folder  the numbers in README.md, on data sets in BEIR layout
# make bench-retrieval DATA=folder  retrieval at length: intervals, the pool, many clients, and other systems beside it
# make bench-answers DATA=folder  what answers say and cite, when they keep silent and how long they take
# make bench-report DATA=folder  how long the nightly report takes on 200 questions, and the night after
# make bench-peers  an environment for each of those systems, 7 GB; PEERS= for none of them
# make bench-scale DATA=folder ROWS=1000000  indexes of so many passages: speed, recall, memory, freshness
# make bench-ingest DATA=folder COUNT=20000  the same for ingest, on folder/documents and COUNT generated files
# make soak   the abuse tests at length: CLIENTS=64 at once for SECONDS=600, EXAMPLES=100 odd requests of each kind; then
#             the fault tests: KILLS=1000 kills, every point of every stage; SEED=n makes its choices again
# make format, make clean

VENV := .venv
PYTHON := $(VENV)/bin/python
CITEWELL := $(VENV)/bin/citewell
PIP_INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint .constraints.txt
PINS := pyproject.toml .constraints.txt

.PHONY: demo test test-llm lint format bench bench-retrieval bench-answers bench-report bench-peers bench-scale bench-ingest soak clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo-installed
	@$(CITEWELL) demo

# Runs a command as group $(1) of the tests and prints its seconds, whether it passes or not.
timed = @start=$$(date +%s); $(2); status=$$?; echo "== $(1): $$(($$(date +%s) - start)) s"; exit $$status

# Processes of pytest: one for every 3 GB of memory, 2 to 5; they mostly wait, so that more than there are cores are faster.
TESTERS ?= $(or $(shell awk '/^MemAvailable/ {n = int($$2 / 3000000); print (n < 2 ? 2 : n > 5 ? 5 : n)}' /proc/meminfo),3)

test: lint $(VENV)/.test-installed
	$(call timed,pytest,$(PYTHON) -m pytest --numprocesses $(TESTERS) --dist worksteal)
	@$(MAKE) --no-print-directory test-llm

test-llm: $(VENV)/.test-installed
	$(call timed,pytest with a real language model,sh tests/llm/install.sh $(PYTHON) && $(PYTHON) -m pytest -m llm tests/llm)

lint: $(VENV)/.test-installed
	$(call timed,ruff check,$(PYTHON) -m ruff check --quiet)
	$(call timed,ruff format,$(PYTHON) -m ruff format --check --quiet)
	$(call timed,mypy,$(PYTHON) -m mypy)

format: $(VENV)/.test-installed
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

bench: $(VENV)/.test-installed
	$(PYTHON) -m eval.bench $(if $(DATA),--data $(DATA))

PEERS ?= $(basename $(notdir $(wildcard eval/peers/*.txt)))
PEER_FOLDER ?= .peers

bench-retrieval: $(VENV)/.test-installed bench-peers
	$(PYTHON) -m eval.bench_retrieval $(if $(DATA),--data $(DATA)) --peers $(PEER_FOLDER) \
	  $(if $(PEERS),$(PEERS:%=--peer %),--no-peers)

bench-answers: $(VENV)/.test-installed
	$(PYTHON) -m eval.bench_answers $(if $(DATA),--data $(DATA))

bench-report: $(VENV)/.test-installed
	$(PYTHON) -m eval.bench_report $(if $(DATA),--data $(DATA))

bench-peers: $(PEERS:%=$(PEER_FOLDER)/%/.installed)

# A system that can not be installed stops nothing: the table of the benchmark has the reason from the log.
$(PEER_FOLDER)/%/.installed: eval/peers/%.txt | $(PYTHON)
	@echo "Installing $* into $(@D) for the comparison"
	@$(PYTHON) -m venv $(@D)
	@if $(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $< >$(@D)/install.log 2>&1; then \
	  touch $@; else rm $(@D)/bin/python; echo "$* could not be installed; see $(@D)/install.log" >&2; fi

bench-scale: ROWS ?= 100000
bench-scale: $(VENV)/.test-installed
	$(PYTHON) -m eval.bench_scale $(if $(DATA),--data $(DATA)) --rows $(ROWS)

# Without DATA, the documents that lie beside this folder are taken if they are there.
bench-ingest: DOCUMENTS = $(if $(DATA),$(DATA)/documents,$(wildcard ../shared/data/documents))
bench-ingest: $(VENV)/.test-installed
	$(PYTHON) -m eval.bench_ingest $(if $(DOCUMENTS),--documents $(DOCUMENTS)) $(if $(COUNT),--count $(COUNT))

soak: KILLS ?= 1000
soak: SEED ?= $(shell date +%s)
soak: EXAMPLES ?= 100
soak: CLIENTS ?= 64
soak: SECONDS ?= 600
soak: $(VENV)/.test-installed
	$(PYTHON) -m pytest tests/abuse -x -s --examples $(EXAMPLES) --clients $(CLIENTS) --seconds $(SECONDS)
	$(PYTHON) -m pytest tests/faults -x -s --kills $(KILLS) --seed $(SEED)

clean:
	rm -rf $(VENV) $(PEER_FOLDER) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(PYTHON):
	@for python in python3.13 python3.12 python3.11 python3; do \
	  if $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Creating $(VENV) with $$($$python --version)"; exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "Citewell needs Python 3.11 or newer with its venv module; on Debian: apt install python3 python3-venv" >&2; exit 1

$(VENV)/.demo-installed: $(PINS) | $(PYTHON)
	@echo "Installing Citewell and what it needs into $(VENV) (2.6 GB, some minutes the first time)"
	@$(PIP_INSTALL) --editable '.[cpu]'
	@touch $@

$(VENV)/.test-installed: $(PINS) | $(PYTHON)
	@echo "Installing Citewell with what its tests need into $(VENV) (some minutes the first time)"
	@$(PIP_INSTALL) --editable '.[cpu,eval,dev]'
	@touch $@ $(VENV)/.demo-installed
