"""Choosing ports."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest

from perdure.dev.ports import BLOCK, LOOPBACK, free, require_free, reserved_block
from perdure.errors import Conflict


def test_a_busy_port_is_named_with_what_wanted_it() -> None:
    """The message says which port, for what, and how to go on."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not free(port)
        with pytest.raises(Conflict, match=rf"port {port}, wanted for valkey.*--ports auto"):
            require_free({"valkey": port})


def test_two_platforms_never_get_the_same_block() -> None:
    """Blocks that are open at the same time do not overlap."""
    with reserved_block() as one, reserved_block() as two, reserved_block() as three:
        bases = sorted((one, two, three))
    assert all(upper - lower >= BLOCK for lower, upper in pairwise(bases))
