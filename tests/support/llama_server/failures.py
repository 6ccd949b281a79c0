"""What llama-server logs when a model does not load, as (where, text); for what files do not cause.

`{model}` and `{mmproj}` are the files of the command line.
"""

from __future__ import annotations

_CONTEXT = [
    ("cmn  common_init_", "failed to create context with model '{model}'"),
    ("srv    load_model", "failed to create_context with model '{model}'"),
]


def _not_loaded(why: str) -> list[tuple[str, str]]:
    return [
        ("llama_model_load", f"error loading model: {why}"),
        ("llama_model_load_from_file_impl", "failed to load model"),
        ("cmn  common_init_", "failed to load model '{model}'"),
        ("srv    load_model", "failed to load model, '{model}'"),
    ]


FAILURES: dict[str, list[tuple[str, str]]] = {
    "no memory": [
        ("ggml_aligned_malloc", "insufficient memory (attempted to allocate 19531.25 MB)"),
        (
            "ggml_backend_cpu_buffer_type_alloc_buffer",
            "failed to allocate buffer of size 20480000000",
        ),
        (
            "llama_init_from_model",
            "failed to initialize the context: failed to allocate buffer for kv cache",
        ),
        *_CONTEXT,
    ],
    "no GPU memory": [
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer",
            "allocating 19531.25 MiB on device 0: cudaMalloc failed: out of memory",
        ),
        ("alloc_tensor_range", "failed to allocate CUDA0 buffer of size 20480000000"),
        *_not_loaded("unable to allocate CUDA0 buffer"),
    ],
    "architecture": _not_loaded("unknown model architecture: 'abacus'"),
    "split": [
        (
            "gguf_init_from_file",
            "failed to open GGUF file '{model}-00002-of-00003.gguf' (No such file or directory)",
        ),
        *_not_loaded("failed to load GGUF split from {model}-00002-of-00003.gguf"),
    ],
    "mmproj": [
        (
            "mtmd_init_from_file",
            "error: mismatch between text model (n_embd = 192) and mmproj (n_embd = 2048)",
        ),
        ("srv    load_model", "failed to load multimodal model, '{mmproj}'"),
    ],
}
