"""Failures that are told in one line instead of a traceback."""

from __future__ import annotations


class MeshError(Exception):
    """Message for the user and the exit code of the command."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OutputClosed(Exception):
    """Nobody reads our output any more, as after `| head`. Told apart from a closed connection."""
