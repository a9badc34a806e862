"""How fast samples are read, beside the libraries that others use: ``python -m benchmarks.read`` (see ``run.py``)."""
