"""The registry of cases: each module named here has a list CASES (tools/golden/goldenfile.py)."""

from __future__ import annotations

import importlib

from ..goldenfile import Case

MODULES = ("deepseek_v3", "deepseek_v32", "glm_moe_dsa", "expertmesh")


def all_cases() -> list[Case]:
    """The cases of every family, in the order of MODULES."""
    found: list[Case] = []
    for module in MODULES:
        found += importlib.import_module(f"{__name__}.{module}").CASES
    return found
