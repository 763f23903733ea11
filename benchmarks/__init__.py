"""The speed marks of perdure beside the bare floor, measured in one run: `python -m benchmarks`."""
