# VENV=path takes another environment than .venv; one that has torch keeps it.
VENV ?= .venv
RUN ?= runs/demo
PYTHON = $(VENV)/bin/python

.PHONY: demo test lint format docs dist

demo: ## train a reader on the bundled pairs, taught by the embedded teacher, print the results, ask a question
	tools/install.sh $(VENV) cube3d,model2vec
	rm -rf $(RUN)
	$(VENV)/bin/cube3d train --out $(RUN)
	$(VENV)/bin/cube3d evaluate $(RUN)
	$(VENV)/bin/cube3d ask $(RUN) "What is overfitting?"

test: ## the test suite
	tools/install.sh $(VENV) cube3d,test
	$(PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: ## style and types; changes nothing
	tools/install.sh $(VENV) cube3d,test,lint
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' | xargs $(VENV)/bin/clang-format --dry-run -Werror

format: ## puts Python and C++ into the project's style
	tools/install.sh $(VENV) lint
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' | xargs $(VENV)/bin/clang-format -i

docs: ## the documentation, in build/docs: runs the tutorials; a broken link is an error
	tools/install.sh $(VENV) cube3d,test,docs
	$(PYTHON) -m sphinx -W --keep-going -n -b html docs build/docs

dist: ## an sdist, and from it a wheel of the CPU part for this Python, in dist/
	tools/install.sh $(VENV) build
	rm -rf dist
	CUBE_KERNELS_BUILD_NATIVE=1 CUBE_KERNELS_BUILD_CUDA=0 $(PYTHON) -m build --outdir dist/built
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PYTHON) -m auditwheel repair --wheel-dir dist dist/built/*.whl
	mv dist/built/*.tar.gz dist
	rm -r dist/built
	$(PYTHON) -m twine check --strict dist/*
