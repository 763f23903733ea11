"""The Makefile is the front door: every target exists and says what it does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGETS = [
    "help",
    "install",
    "runtime",
    "run",
    "demo",
    "stop",
    "status",
    "logs",
    "fmt",
    "check",
    "test-fast",
    "test",
    "test-chaos",
    "bench",
    "docs",
]


def test_help_lists_every_target_with_its_purpose() -> None:
    """`make help` prints the targets in their order, each with a sentence."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # also under make
    printed = subprocess.run(["make", "help"], cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout
    lines = [re.fullmatch(r"  make (\S+) +(\S.*)", line) for line in printed.splitlines()]
    assert all(lines)
    assert [line[1] for line in lines if line] == TARGETS


def test_no_target_is_mistaken_for_a_file() -> None:
    """A folder named `docs` must not make `make docs` do nothing."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert phony[1].split() == TARGETS


def test_the_entry_for_ci_runs_the_checks_and_the_tests() -> None:
    """`.ci/run` is executable, stops at the first failure and calls what the README names."""
    script = ROOT / ".ci" / "run"
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert [line for line in text.splitlines() if line.startswith("make ")] == ["make check", "make test"]
