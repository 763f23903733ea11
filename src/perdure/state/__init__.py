"""Documents: typed JSON under one key, changed by compare-and-set."""
