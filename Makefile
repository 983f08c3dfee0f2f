PY  ?= python3
BIN := .venv/bin
.PHONY: demo test lint bench peers soak soak-short train clean

demo: .venv/dev.ok            ## play a synthetic drive through the whole system and open the report
	$(BIN)/syncline demo $(ARGS)
test: .venv/dev.ok            ## the tests, under ten minutes; two files at a time (ARGS="-n 0": one)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)
lint: .venv/dev.ok            ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
bench: .venv/dev.ok           ## performance as ratios to a peer or to the limit, in one run
	$(BIN)/python -m pytest tests/bench -o addopts="--import-mode=importlib --strict-markers -ra" --benchmark-columns=median,iqr,ops $(ARGS)
peers: .venv-peers/ok .venv-openvino/ok .venv-plugins/ok   ## other runtimes for bench and soak to stand beside (optional, several GB)
soak: .venv/dev.ok            ## long fault and statistics runs, also in virtual machines
	-scripts/vm-packages
	$(BIN)/python -m pytest -m soak -o timeout=1800 $(ARGS)
soak-short: .venv/dev.ok      ## the soaks of seconds, without virtual machines: what CI runs after the tests
	$(BIN)/python -m pytest -m 'soak and not long' --ignore=tests/vm -o timeout=600 $(ARGS)
train: .venv/dev.ok .venv/train.ok   ## train a shipped network again: NET=detector or segmenter (downloads torch)
	$(BIN)/python -m syncline.cloud.train.$(or $(NET),detector) $(ARGS)
clean:
	rm -rf .venv .venv-peers .venv-openvino .venv-plugins build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
.venv/%.ok: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$*]'
	@touch $@
.venv-peers/ok: tests/bench/peers.txt
	@$(PY) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -r $<
	.venv-peers/bin/python -m pip install -q --no-deps ultralytics==8.4.190 torchvision==0.28.0
	@touch $@
.venv-openvino/ok: tests/edge/openvino.txt
	@$(PY) -m venv .venv-openvino
	.venv-openvino/bin/python -m pip install -q -r $<
	@touch $@
.venv-plugins/ok: tests/edge/plugins.txt
	@$(PY) -m venv .venv-plugins
	.venv-plugins/bin/python -m pip install -q -c constraints.txt -r $<
	@touch $@
$(BIN)/python:
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11+ needed: make PY=python3.11")'
	@$(PY) -m venv .venv >/dev/null 2>&1 || { $(PY) -m venv --clear --without-pip .venv && \
	  $(PY) -m pip --python $@ install -q pip; }
