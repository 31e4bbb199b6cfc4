"""PyTorch: tensors that derivatives pass through, which nothing may be written into."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.forward_ad import unpack_dual

try:
    from torch.func import debug_unwrap as _unwrapped
except ImportError:  # an older release, whose torch.func has no public way to ask

    def _unwrapped(x: Any, *, recurse: bool) -> Any:
        return x


def is_differentiated(x: Any) -> bool:
    """Whether derivatives pass through a tensor: backwards, forwards, or in a transformation of `torch.func`.

    Among these is `torch.func.vmap`, where what is computed from a batch cannot be written into what has none.
    """
    return bool(
        (x.requires_grad and torch.is_grad_enabled())
        or _unwrapped(x, recurse=False) is not x
        or unpack_dual(x).tangent is not None
    )
