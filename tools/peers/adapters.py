"""The tools: how each is called, and how what it wrote is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cases import Case
from .figures import NAMES, Figures, Said

#: Tokens of each prompt.
PROMPT = 64


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is to be made.

    Attributes:
        folder: for what the tool writes; empty.
        tokenizer: a folder in Hugging Face's format.
    """

    case: Case
    url: str
    model: str
    folder: Path
    tokenizer: Path
    seed: int


class UnreadableError(Exception):
    """A tool wrote something else than is known of its version."""


@dataclass(frozen=True, slots=True)
class Program:
    """A tool.

    Attributes:
        requirement: what pip installs, into an environment of its own; "": nothing.
        command: its program in that environment.
        environment: variables that it is started with.
    """

    name: str
    title: str
    requirement: str
    command: str
    environment: tuple[tuple[str, str], ...] = ()

    def arguments(self, job: Job) -> list[str]:
        """What it is called with."""
        return _ARGUMENTS[self.name](job)

    def read(self, folder: Path) -> Said:
        """What it wrote.

        Raises:
            UnreadableError: it is not there, or not as this version writes it.
        """
        path = folder / _FILES[self.name]
        try:
            return _READERS[self.name](json.loads(path.read_text("utf-8")))
        except OSError:
            raise UnreadableError(f"{self.title} wrote no {path.name}") from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise UnreadableError(f"{self.title}'s {path.name} has another form ({what})") from None


#: What is run where nothing else is asked for; vLLM is large.
USUAL = ("llcuda", "guidellm", "aiperf")
PROGRAMS = {
    program.name: program
    for program in (
        Program("llcuda", "llcuda bench", "", str(Path(sys.executable).with_name("llcuda"))),
        Program(
            "guidellm",
            "GuideLLM",
            "guidellm==0.8.1",
            "guidellm",
            (("HF_HUB_OFFLINE", "1"),),
        ),
        Program("aiperf", "AIPerf", "aiperf==0.13.0", "aiperf"),
        Program("vllm", "vllm bench serve", "vllm==0.33.0", "vllm", (("HF_HUB_OFFLINE", "1"),)),
    )
}


# -- llcuda bench -----------------------------------------------------------------------------


def _ask_llcuda(job: Job) -> list[str]:
    case = job.case
    return [
        *("bench", "latency", "--server", job.url),
        *("--rate", f"{case.rate:g}", "--seconds", f"{case.seconds:g}", "--repeats", "1"),
        *("--max-tokens", str(case.tokens), "--prompts", "synthetic:12"),
        *("--seed", str(job.seed), "--json", str(job.folder / _FILES["llcuda"])),
    ]


def _read_llcuda(document: Mapping[str, Any]) -> Said:
    (path,) = document["paths"].values()
    outcomes = path["outcomes"]
    rates = document["rates"][0]
    said = Said(
        counted=outcomes["done"],
        cut=outcomes.get("cut", 0),
        failed=sum(outcomes.get(name, 0) for name in ("refused", "failed", "timeout")),
        latency=_estimates(path["metrics"]["latency"]),
        ttft=_estimates(path["metrics"]["ttft"]),
        requests_per_s=_value(rates["requests_per_s"]),
        tokens_per_s=_value(rates["tokens_per_s"]),
        notes=[f"INVALID: {problem}" for problem in document["problems"]],
    )
    for metric in ("latency", "ttft"):
        for name in NAMES:
            found = path["metrics"][metric].get(name) or {}
            if found.get("low") is not None and found.get("high") is not None:
                said.intervals[f"{metric} {name}"] = (found["low"] / 1e3, found["high"] / 1e3)
    return said


def _value(estimate: Mapping[str, Any] | None) -> float | None:
    return None if estimate is None or estimate["value"] is None else float(estimate["value"])


def _estimates(metric: Mapping[str, Any]) -> Figures:
    if metric["unit"] != "ms":
        raise ValueError(f"unit {metric['unit']}")
    found = {name: _value(metric.get(name)) for name in NAMES}
    return {name: None if value is None else value / 1e3 for name, value in found.items()}


# -- GuideLLM ---------------------------------------------------------------------------------


def _ask_guidellm(job: Job) -> list[str]:
    case = job.case
    return [
        *("run", "--backend", _backend(job)),
        *("--profile", f"kind=poisson,rate={case.rate:g}"),
        *("--constraint", f"kind=max_duration,seconds={case.seconds:g}"),
        "--data",
        f"kind=synthetic_text,prompt_tokens={PROMPT},output_tokens={case.tokens}",
        *("--tokenizer", f"kind=huggingface_auto,model={job.tokenizer}"),
        *("--seed", f"kind=static,value={job.seed}"),
        *("--output", f"kind=json,path={job.folder / _FILES['guidellm']}", "--disable-console"),
    ]


def _backend(job: Job) -> str:
    # Its check asks for /health, which is no part of OpenAI's API.
    return f"kind=openai_http,target={job.url},model={job.model},validate_backend=false"


def _read_guidellm(document: Mapping[str, Any]) -> Said:
    (benchmark,) = document["benchmarks"]
    metrics = benchmark["metrics"]
    totals = metrics["request_totals"]
    said = Said(
        counted=totals["successful"],
        cut=totals["incomplete"],
        failed=totals["errored"],
        latency={},
        ttft={},
        requests_per_s=metrics["requests_per_second"]["successful"]["mean"],
        tokens_per_s=metrics["output_tokens_per_second"]["successful"]["mean"],
    )
    rows = (("latency", "request_latency", 1.0), ("ttft", "time_to_first_token_ms", 1e-3))
    for name, key, unit in rows:
        found = metrics[key]["successful"]
        shares = found["percentiles"]
        values = [found["mean"], *(shares[share] for share in NAMES[1:])]
        told = found["count"] > 0  # else all are 0
        figures: Figures = {
            n: v * unit if told else None for n, v in zip(NAMES, values, strict=True)
        }
        if name == "latency":
            said.latency = figures
        else:
            said.ttft = figures
        intervals = {"mean": found.get("mean_ci"), **(found.get("percentile_cis") or {})}
        for share in NAMES:
            if (interval := intervals.get(share)) is not None:
                low, high = interval["lower"] * unit, interval["upper"] * unit
                said.intervals[f"{name} {share}"] = (low, high)
    said.notes = [str(warning) for warning in benchmark.get("warnings") or ()]
    return said


# -- AIPerf -----------------------------------------------------------------------------------


def _ask_aiperf(job: Job) -> list[str]:
    case = job.case
    return [
        *("profile", "-m", job.model, "-u", job.url, "--endpoint-type", "chat", "--streaming"),
        *("--tokenizer", str(job.tokenizer), "--use-server-token-count"),
        *("--request-rate", f"{case.rate:g}", "--arrival-pattern", "poisson"),
        *("--benchmark-duration", f"{case.seconds:g}", "--random-seed", str(job.seed)),
        *("--prompt-input-tokens-mean", str(PROMPT)),
        *("--prompt-output-tokens-mean", str(case.tokens)),
        *("--output-artifact-dir", str(job.folder), "--ui", "none"),
        *("--no-gpu-telemetry", "--no-server-metrics"),
    ]


def _read_aiperf(document: Mapping[str, Any]) -> Said:
    def metric(name: str) -> Figures:
        found = document[name]
        if found["unit"] != "ms":
            raise ValueError(f"unit {found['unit']}")
        return {"mean": found["avg"] / 1e3, **{n: found[n] / 1e3 for n in NAMES[1:]}}

    return Said(
        counted=int(document["request_count"]["avg"]),
        cut=0,  # it does not say: what comes in its grace period of 30 s is counted
        failed=int((document.get("error_request_count") or {"avg": 0})["avg"]),
        latency=metric("request_latency"),
        ttft=metric("time_to_first_token"),
        requests_per_s=document["request_throughput"]["avg"],
        tokens_per_s=document["output_token_throughput"]["avg"],
        notes=["cancelled"] if document.get("was_cancelled") else [],
    )


# -- vLLM -------------------------------------------------------------------------------------


def _ask_vllm(job: Job) -> list[str]:
    case = job.case
    return [
        *("bench", "serve", "--backend", "openai-chat", "--base-url", job.url),
        *("--endpoint", "/v1/chat/completions", "--model", job.model),
        *("--tokenizer", str(job.tokenizer), "--dataset-name", "random"),
        *("--random-input-len", str(PROMPT), "--random-output-len", str(case.tokens)),
        # It knows no duration.
        *("--num-prompts", f"{case.rate * case.seconds:.0f}", "--request-rate", f"{case.rate:g}"),
        *("--seed", str(job.seed), "--percentile-metrics", "ttft,e2el"),
        *("--metric-percentiles", "50,90,99", "--save-result"),
        *("--result-dir", str(job.folder), "--result-filename", _FILES["vllm"]),
    ]


def _read_vllm(document: Mapping[str, Any]) -> Said:
    def metric(name: str) -> Figures:
        return {n: document[f"{n}_{name}_ms"] / 1e3 for n in NAMES}

    return Said(
        counted=document["completed"],
        cut=0,  # it waits for all
        failed=document.get("failed", 0),
        latency=metric("e2el"),
        ttft=metric("ttft"),
        requests_per_s=document["request_throughput"],
        tokens_per_s=document["output_throughput"],
    )


_FILES = {
    "llcuda": "llcuda.json",
    "guidellm": "guidellm.json",
    "aiperf": "profile_export_aiperf.json",
    "vllm": "vllm.json",
}
_ARGUMENTS = {
    "llcuda": _ask_llcuda,
    "guidellm": _ask_guidellm,
    "aiperf": _ask_aiperf,
    "vllm": _ask_vllm,
}
_READERS = {
    "llcuda": _read_llcuda,
    "guidellm": _read_guidellm,
    "aiperf": _read_aiperf,
    "vllm": _read_vllm,
}
