"""A projector that loads in milliseconds and sees nothing sensible, for models that take images."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import gguf
import numpy as np

_WIDTH, _FORWARD, _PATCH, _IMAGE = 32, 64, 8, 32


def write_tiny_projector(path: Path, *, width: int = 192) -> Path:
    """Write a random vision encoder of one layer, in LLaVA's form; return `path`.

    Args:
        width: of the embeddings of its model; 192 is that of the demonstration model.
    """
    w = gguf.GGUFWriter(str(path), "clip")
    w.add_bool("clip.has_vision_encoder", True)
    w.add_bool("clip.has_llava_projector", True)
    w.add_string("clip.projector_type", "mlp")
    for name, number in (
        ("image_size", _IMAGE),
        ("patch_size", _PATCH),
        ("embedding_length", _WIDTH),
        ("feed_forward_length", _FORWARD),
        ("projection_dim", width),
        ("attention.head_count", 2),
        ("block_count", 1),
    ):
        w.add_uint32(f"clip.vision.{name}", number)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    w.add_array("clip.vision.image_mean", [0.5] * 3)
    w.add_array("clip.vision.image_std", [0.5] * 3)
    w.add_bool("clip.use_gelu", True)
    random = np.random.default_rng(0)
    for name, shape in _shapes(width).items():
        w.add_tensor(name, (random.normal(size=shape) / 20).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    layers = {
        **{f"v.blk.0.attn_{name}": (_WIDTH, _WIDTH) for name in ("q", "k", "v", "out")},
        "v.blk.0.ffn_down": (_WIDTH, _FORWARD),
        "v.blk.0.ffn_up": (_FORWARD, _WIDTH),
        "mm.0": (width, _WIDTH),
        "mm.2": (width, width),
        **{f"v.{name}": (_WIDTH,) for name in ("pre_ln", "post_ln", "blk.0.ln1", "blk.0.ln2")},
    }
    return {
        "v.class_embd": (_WIDTH,),
        "v.patch_embd.weight": (_WIDTH, 3, _PATCH, _PATCH),
        "v.position_embd.weight": ((_IMAGE // _PATCH) ** 2 + 1, _WIDTH),
        **{f"{name}.weight": shape for name, shape in layers.items()},
        **{f"{name}.bias": shape[:1] for name, shape in layers.items()},
    }


def image_url(red: int = 255) -> str:
    """A picture of 8 by 8 pixels of one colour, as the URL that chats have it in."""
    row = b"\0" + bytes((red, 0, 0)) * 8
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(row * 8)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()
