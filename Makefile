# Two commands need Python 3.11+ and make, nothing else; they create .venv and install into it the first time:
#   make demo    train on generated images for some minutes and write a report
#   make test    the whole gate
.DEFAULT_GOAL := help
SHELL  := /bin/sh
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DOCS   ?= .venv-docs
DEMO   ?= demo_out
SAMPLE ?= data/sample
GATE   ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test docs export clean notebooks readme hooks bench stress sample weights

help:            ## this list
	@grep -E '^[a-z]+: .*##|^[a-z]+: *##' Makefile | sed -E 's/^([a-z]+):[^#]*## */  make \1|/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

# $(call environment,FOLDER,NOTE): an environment that works is kept, one that does not is made anew
define environment
	@if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
	   py=; for p in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	     if "$$p" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then py=$$p; break; fi; \
	   done; \
	   if [ -z "$$py" ]; then \
	     echo "hqgnet_nb: no Python 3.11 or newer with venv and pip was found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	   fi; \
	   echo "creating $(1) with $$("$$py" -V); $(2)"; \
	   "$$py" -m venv --clear $(1); \
	 fi
	@echo "installing into $(1)"
endef

# Installed again only when the metadata changes.
$(STAMP): settings.ini setup.py
	$(call environment,$(VENV),the first install downloads PyTorch and takes some minutes)
	@$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $@

# The site's own: it reads the modules and runs nothing, so it holds neither PyTorch nor the library.
$(DOCS)/.installed: settings.ini
	$(call environment,$(DOCS),the first install takes a minute)
	@sed -n 's/^docs_requirements *= *//p' settings.ini | tr ' ' '\n' > $(DOCS)/requirements.txt
	@$(DOCS)/bin/python -m pip install -qq -r $(DOCS)/requirements.txt
	@touch $@

install: $(STAMP)  ## create .venv and install (nothing to do the second time)

demo: $(STAMP)   ## train on generated images, enhance held-out ones, write a report
	@$(BIN)/hqgnet demo --out $(DEMO)
	@test -e $(DEMO)/report.html && echo "report: $(DEMO)/report.html"

test: $(STAMP)   ## the gate: notebooks, modules, tests, style, wheel; GATE='--only ruff' runs one stage
	@$(BIN)/python tests/gate.py $(GATE)

# The live demo's pictures are made by the library; the rest of the site needs nothing of it.
docs: $(STAMP) $(DOCS)/.installed ## build the site into _docs: course, library, cards, a live demo; a warning is an error
	@$(BIN)/python -m hqgnet_nb.widgets docs/_static/demo
	@$(DOCS)/bin/python docs/stage.py build/docs/source
	@rm -rf build/docs/html
	@$(DOCS)/bin/python -m sphinx -q -W --keep-going -c docs -d build/docs/doctrees build/docs/source build/docs/html
	@rm -rf _docs && cp -r build/docs/html _docs && echo "site: _docs/index.html"

export: $(STAMP) ## write the modules from the notebooks
	@$(BIN)/nbdev_export

clean: $(STAMP)  ## remove from the notebooks what does not belong in a commit
	@$(BIN)/nbdev_clean

notebooks: $(STAMP) export ## run notebooks in place, then clean; NB='nbs/04*.ipynb' for some, SLOW=1 for the long cells too
	@$(BIN)/python tests/notebooks.py execute $(if $(SLOW),--slow) $(NB)
	@$(BIN)/nbdev_clean

readme: $(STAMP) ## write README.md from nbs/index.ipynb
	@$(BIN)/python tests/notebooks.py readme

hooks:           ## let git run .githooks/pre-commit, which checks notebooks before each commit
	@git config core.hooksPath .githooks && echo "git now runs .githooks/pre-commit before each commit"

TIMED = "speed.py" "speed.py --threads 2 --only convolutions,inference --no-compile" "large.py --quality fast full" "batch.py 10 100 1000 --sides 128" "wavelet.py" "step.py" "phantoms.py" "demo.py"
bench: $(STAMP)  ## every timed comparison in bench/, on an idle machine some 40 minutes; the tables are kept in nbs/results/bench.md
	@for f in $(TIMED); do printf '\n## bench/%s\n\n' "$$f"; $(BIN)/python bench/$$f 2>/dev/null || echo "failed: run it alone to see why"; done | tee nbs/results/bench.md

stress: $(STAMP) ## what the gate does in part, in full: 1,000 bad files, 50 kills of a training and 50 of a batch, three processes, the course in JupyterLab
	@rm -f nbs/results/stress.md; export HQGNET_STRESS=$(CURDIR)/nbs/results/stress.md; \
	 HQGNET_PROCESSES=3 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/test_fuzz.py tests/test_kill.py tests/test_distributed.py; \
	 a=$$?; $(BIN)/python -m pytest -q -s -p no:cacheprovider -n 2 tests/test_browser.py -k course; b=$$?; cat nbs/results/stress.md; exit $$(( a + b ))

weights: $(STAMP) ## train again the weights that come with the library (40 core-minutes)
	@for k in fundus cornea endoscopy; do OMP_NUM_THREADS=1 $(BIN)/python -m hqgnet_nb.pretrained $$k hqgnet_nb/weights/$$k-tiny || exit 1; done

sample: $(STAMP) ## write data/sample again, byte for byte
	@rm -rf $(SAMPLE)
	@$(BIN)/hqgnet phantom $(SAMPLE) --kind fundus --n 4 --size 128 --seed 0
	@$(BIN)/hqgnet degrade $(SAMPLE)/images $(SAMPLE)/degraded --kind fundus --seed 0
