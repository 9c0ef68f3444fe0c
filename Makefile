# Every target sets up .venv for itself, once; a stamp remembers what is installed.
#   make demo         four faces from each sample recording, into outputs/demo
#   make test         the fast tests;  make test-slow: those that need minutes or a browser
#   make lint         ruff
#   make space        the web page at http://127.0.0.1:7860
# On Linux, PyPI's torch brings gigabytes of CUDA. For the CPU build:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_ARGS ?=

BIN := .venv/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --use-pep517 \
	-c constraints.txt $(PIP_ARGS)
HOUSE := setup.cfg pyproject.toml constraints.txt

# Two OpenMP programs that spin while they wait slow each other down tenfold on few cores.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test test-slow lint space
.NOTPARALLEL:

demo: .venv/.base
	$(BIN)/speech2face samples/*.flac --output outputs/demo
	@echo "The faces are in outputs/demo; start with the contact sheets:"
	@for voice in samples/*.flac; do echo "  outputs/demo/$$(basename $$voice .flac).png"; done

test: .venv/.test
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

test-slow: .venv/.test .venv/.space .venv/.ray
	$(BIN)/python -m pytest -q -m slow

lint: .venv/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

space: .venv/.space
	$(BIN)/python -m space.app

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.base: .venv/.created $(HOUSE)
	$(PIP_INSTALL) -e .
	@touch $@

.venv/.test: .venv/.created $(HOUSE)
	$(PIP_INSTALL) -e ".[train,distill,data,onnx,dev]"
	$(BIN)/python -m training.torchaudio_on_cpu
	@touch $@ .venv/.base

.venv/.space: .venv/.created $(HOUSE)
	$(PIP_INSTALL) -e ".[space]"
	@touch $@ .venv/.base

.venv/.ray: .venv/.created $(HOUSE)
	$(PIP_INSTALL) -e ".[ray]"
	@touch $@ .venv/.base

.venv/.lint: .venv/.created constraints.txt
	$(PIP_INSTALL) ruff
	@touch $@
