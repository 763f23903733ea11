"""Every Python example in README and docs runs; every relative link leads somewhere."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
NEED_DAPR = {"CONTRIBUTING.md#1"}
"""Examples that start a platform: compiled here, run for real by `tests/integration/test_dev_platform.py`."""
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def examples() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text()), start=1):
            indent, code = match.groups()
            lines = [line.removeprefix(indent) for line in code.splitlines()]
            found.append((f"{page.relative_to(ROOT)}#{number}", "\n".join(lines)))
    return found


RUNNABLE = [example for example in examples() if example[0] not in NEED_DAPR]


@pytest.mark.parametrize(("name", "code"), RUNNABLE, ids=[name for name, _ in RUNNABLE])
def test_an_example_runs(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, name, "exec"), {"__name__": "__main__"})  # noqa: S102 - the examples are our own


def test_the_first_agent_answers_as_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [code for name, code in examples() if name.startswith("README.md")]
    said = re.search(r"# (Done: .*)$", code, re.MULTILINE)
    assert said is not None
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert capsys.readouterr().out.strip() == said[1]
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


@pytest.mark.parametrize("name", sorted(NEED_DAPR))
def test_an_example_that_needs_dapr_is_valid_python(name: str) -> None:
    code = dict(examples())[name]
    compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing
