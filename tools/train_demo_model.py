#!/usr/bin/env python3
"""Train the demonstration model and write it as a GGUF file.

It learns the corpus in tools/demo_model/corpus and the documentation of this repository, on the
CPU. The held-out questions are read only to make sure that none of them is trained on. The same
seed, threads and text give the same model; a limit in minutes gives that up.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo, is_clever, status_line
from tools.demo_model import corpus

EXAMPLE = """\
example:
  python tools/train_demo_model.py --output llcuda_net/data/demo.gguf
  python tools/eval_demo_model.py
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = Parser(
        description="Train llcuda's demonstration model on the CPU and write it as GGUF.",
        epilog=EXAMPLE,
    )
    out.add_argument(
        "--output",
        type=Path,
        default=ROOT / "llcuda_net" / "data" / "demo.gguf",
        help="where to write the model (default: %(default)s)",
    )
    out.add_argument("--float-output", type=Path, help="also write it unquantised, to compare")
    out.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    out.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    out.add_argument("--steps", type=int, default=2800, help="default: %(default)s")
    out.add_argument("--minutes", type=float, help="finish within about this many minutes")
    out.add_argument(
        "--vocabulary", type=int, default=1024, help="most tokens (default: %(default)s)"
    )
    out.add_argument("--width", type=int, default=192, help="default: %(default)s")
    out.add_argument("--layers", type=int, default=4, help="default: %(default)s")
    out.add_argument("--hidden", type=int, default=512, help="SwiGLU width (default: %(default)s)")
    out.add_argument(
        "--device",
        default="cpu",
        help="torch's name of the device; only the CPU is repeatable (default: %(default)s)",
    )
    out.add_argument(
        "--precision",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="of the matrix products; bfloat16 is slow on a CPU without it (default: %(default)s)",
    )
    out.add_argument(
        "--validate",
        action="store_true",
        help="leave one phrasing of each entry out, for tuning without the held-out set",
    )
    return out


def run(options: argparse.Namespace) -> None:
    """Train and write; prints what was used and what came out."""
    began = time.monotonic()
    entries = corpus.load()
    held = corpus.load_heldout(entries)
    forbidden = [item.question for item in held]
    sha256 = corpus.digest(entries)
    if options.validate:
        entries, taken = corpus.split_validation(entries)
        forbidden += [question for question, _ in taken]
    docs = corpus.documentation(ROOT)
    phrasings = sum(len(entry.questions) for entry in entries)
    echo(f"corpus: {len(entries)} entries, {phrasings} phrasings, sha256 {sha256[:16]}")
    for name, paragraphs in docs.items():
        echo(f"documentation: {name}, {len(paragraphs)} paragraphs")
    if not docs:
        echo("documentation: none found")

    # Threads that spin while they wait make a shared machine many times slower. OpenMP reads this
    # when torch is loaded, which is late anyway: --help or a broken corpus should not wait for it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from tools.demo_model import export, network, sampler, tokenizer, training

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    prose = [paragraph for paragraphs in docs.values() for paragraph in paragraphs]
    tokens = tokenizer.DemoTokenizer.train(_texts(entries, prose), options.vocabulary)
    model = network.Llama(
        network.Config(
            vocab_size=tokens.size,
            d_model=options.width,
            n_layers=options.layers,
            n_heads=options.width // 64,
            n_kv_heads=max(1, options.width // 128),
            d_ff=options.hidden,
        )
    )
    parameters = sum(p.numel() for p in model.parameters())
    echo(f"model: {parameters:,} parameters, {tokens.size} tokens in the vocabulary", flush=True)

    batches = sampler.Sampler(entries, prose, tokens, forbidden, options.seed)
    plan = training.Plan(
        steps=options.steps,
        minutes=options.minutes,
        device=options.device,
        bfloat16=options.precision == "bfloat16",
    )
    steps = training.train(model, batches, len(entries), plan, _progress(options.steps, began))
    size = export.write(options.output, model, tokens, sha256, options.seed)
    if options.float_output:
        export.write(options.float_output, model, tokens, sha256, options.seed, quantised=False)
    minutes = (time.monotonic() - began) / 60
    echo(f"wrote {options.output}: {size:,} bytes after {steps} steps, {minutes:.1f} minutes")


def _texts(entries: list[corpus.Entry], prose: list[str]) -> list[str]:
    """What the tokenizer learns from: questions also in lower case, as people type them."""
    texts = list(prose)
    for entry in entries:
        texts += [entry.answer, entry.answer]
        texts += entry.questions
        texts += [question.lower() for question in entry.questions]
    random.Random(0).shuffle(texts)
    return texts


def _progress(steps: int, began: float) -> Callable[[int, float, float], None]:
    terminal = is_clever(sys.stderr)

    def show(step: int, done: float, loss: float) -> None:
        if terminal and (step % 10 == 0 or step == steps):
            minutes = (time.monotonic() - began) / 60
            text = f"step {step}/{steps}  {done:4.0%}  loss {loss:.4f}  {minutes:.1f} min"
            status_line(text, sys.stderr)
            if step == steps:
                echo(file=sys.stderr)

    return show


def main() -> int:
    """Run; faults that a user can mend are told in one line."""
    options = parser().parse_args()
    try:
        run(options)
    except KeyboardInterrupt:
        echo("\ntrain_demo_model: stopped; nothing was written", file=sys.stderr)
        return 130
    except (corpus.CorpusError, OSError, ImportError, RuntimeError) as error:
        echo(f"train_demo_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
