"""Types of flags: what they refuse is refused before anything starts."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """1 to 1024."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError("must be a number from 1 to 1024")
    return value


def port(text: str) -> int:
    """A TCP port; 0 is any."""
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("must be a number from 0 (any port) to 65535")
    return value


def seconds(text: str) -> float:
    """More than none, at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 86400:  # also false for NaN
        raise argparse.ArgumentTypeError("must be a number of seconds above 0, at most 86400")
    return value
