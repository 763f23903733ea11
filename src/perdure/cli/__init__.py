"""The command `perdure`: one module for each group of commands."""
