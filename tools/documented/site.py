"""The site's navigation, and how links in the repository become links of the site.

docs/site/conf.py gives these to Sphinx.
"""

from __future__ import annotations

import re
from pathlib import Path

#: By what people want to do: pages without their suffix, relative to the repository, and titles.
NAVIGATION = {
    "Start": (
        ("docs/start", "Install, and ask"),
        ("docs/page", "The page for browsers"),
        ("docs/demo-model", "The demonstration model"),
        ("docs/comparison", "Compared with others"),
        ("CHANGELOG", "Changes"),
    ),
    "Clients": (
        ("docs/clients", "Foreign clients"),
        ("docs/client", "Our own clients"),
        ("docs/chat", "Chats, tools, images"),
        ("docs/http-api", "The HTTP API"),
        ("docs/api-chats", "Chats, completions, embeddings"),
        ("docs/api-responses", "Responses, conversations"),
        ("docs/api-batches", "Files, batches"),
        ("docs/api-anthropic", "Anthropic's API"),
        ("docs/mpi", "Batches over MPI"),
    ),
    "Models and GPUs": (
        ("docs/models", "Models"),
        ("docs/gpu", "GPUs"),
        ("kernels/README", "Kernels"),
    ),
    "Operate": (
        ("docs/operating", "Operating a server"),
        ("deploy/README", "Containers, monitoring"),
        ("docs/proxies", "Behind a proxy"),
        ("docs/cluster", "Several servers"),
        ("SECURITY", "Security"),
    ),
    "Durability": (
        ("docs/durability", "What survives what"),
        ("docs/results", "Results"),
    ),
    "Measure": (
        ("docs/measuring", "Measuring honestly"),
        ("docs/benchmarks/README", "Benchmarks"),
        ("docs/benchmarks/overhead", "What a server adds"),
        ("docs/benchmarks/latency", "Latency"),
        ("docs/benchmarks/throughput", "Throughput"),
        ("docs/benchmarks/scaling", "Scaling over ranks"),
        ("docs/benchmarks/gpu", "In front of a GPU"),
        ("docs/benchmarks/kernels", "Kernels"),
        ("docs/benchmarks/kv", "States of a KV cache"),
        ("docs/benchmarks/cancel", "How soon a slot is free"),
        ("docs/benchmarks/fairness", "Fair share"),
        ("docs/benchmarks/queue", "Thousands who wait"),
        ("docs/benchmarks/processes", "Several processes"),
        ("docs/benchmarks/store", "Journal and store"),
        ("docs/benchmarks/growth", "What grows"),
        ("docs/benchmarks/install-size", "What an installation costs"),
        ("docs/benchmarks/semantic", "Semantic search"),
        ("docs/benchmarks/page", "The page"),
        ("docs/benchmarks/crash", "Kills"),
        ("docs/benchmarks/proxy", "Cut connections"),
        ("docs/benchmarks/chaos", "Upstreams in trouble"),
        ("docs/benchmarks/soak", "An hour of load"),
        ("docs/benchmarks/fuzzing", "Fuzzing"),
        ("docs/benchmarks/coverage", "Whether intervals hold"),
        ("docs/benchmarks/peers", "Measuring tools compared"),
        ("docs/benchmarks/record", "A record"),
    ),
    "Protocol": (
        ("protocol/SPEC", "Specification"),
        ("protocol/vectors/README", "Test vectors"),
    ),
    "Develop": (
        ("CONTRIBUTING", "Contributing"),
        ("docs/architecture", "How it works"),
        ("llcuda_net/page/README", "The page's code"),
        ("docs/claims", "Claims and their tests"),
        ("docs/licences", "Licences"),
    ),
}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)\)")


def slug(heading: str) -> str:
    """What follows `#` in a link to a heading, as forges of repositories make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def link_folders(root: Path, page: str, text: str) -> str:
    """A page of the site, from one of the repository: it has no folders to link to.

    A link to a folder leads to the README in it, where the site has that; else its text is left.

    Args:
        root: of the repository.
        page: the file, relative to that.
        text: what is in it.
    """
    names = {name for pages in NAVIGATION.values() for name, _ in pages}

    def mend(match: re.Match[str]) -> str:
        words, link = match[1], match[2]
        target = (root / page).parent / link
        if "://" in link or not target.is_dir():
            return match[0]
        name = target.resolve().relative_to(root).as_posix()
        if f"{name}/README" in names:
            return f"[{words}]({link.rstrip('/')}/README.md)"
        return words

    return _LINK.sub(mend, text)


def external_links(root: Path) -> list[str]:
    """Links of all pages that lead elsewhere, each once, in order. Nobody follows them here."""
    found: set[str] = set()
    for pages in NAVIGATION.values():
        for name, _ in pages:
            text = (root / f"{name}.md").read_text(encoding="utf-8")
            found.update(re.findall(r"\]\((https?://[^)\s]+)\)", text))
    return sorted(found)
