"""What `import llcuda_kernels` gives."""

from __future__ import annotations

import pytest

import llcuda_kernels as k


def test_every_public_name_is_there() -> None:
    for name in k.__all__:
        assert getattr(k, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = k.no_such_name
