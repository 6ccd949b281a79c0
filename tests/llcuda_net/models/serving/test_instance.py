"""What is said of a model's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from llcuda_net.config.models import ModelSpec
from llcuda_net.models.serving.instance import Described


def test_folders_are_told_to_nobody_though_one_is_in_another() -> None:
    spec = ModelSpec("a", mmproj="/srv/models/deep/mmproj.gguf")
    described = Described(spec, Path("/srv/models/a.gguf"), cast(Any, None))
    text = "/srv/models/deep/mmproj.gguf is no projector of /srv/models/a.gguf"
    assert described.without_folders(text) == "mmproj.gguf is no projector of a.gguf"
