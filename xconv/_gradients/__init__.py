"""How every operation carries a gradient back; each module holds the rules of a door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xconv._gradients import (
    _activations,
    _adaptive,
    _around,
    _convolutions,
    _dense,
    _filters,
    _patches,
    _pools,
    _ranks,
)
from xconv._gradients._rule import Rule

RULES: dict[Callable[..., Any], Rule] = {
    **_activations.RULES,
    **_adaptive.RULES,
    **_around.RULES,
    **_convolutions.RULES,
    **_dense.RULES,
    **_filters.RULES,
    **_patches.RULES,
    **_pools.RULES,
    **_ranks.RULES,
}
