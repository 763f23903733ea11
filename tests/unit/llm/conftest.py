"""No test here may call a model outside of this process, except where it brings the server itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perdure.llm import forbid_outside_calls


@pytest.fixture(autouse=True)
def _no_outside_calls() -> Iterator[None]:
    with forbid_outside_calls():
        yield
