# Aliases only: everything is done by deploy/dev.py.
.PHONY: demo run test bench lint

demo run test:
	python3 deploy/dev.py $@

# make bench NAME=annotate
bench:
	python3 deploy/dev.py bench $(NAME)

lint:
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
