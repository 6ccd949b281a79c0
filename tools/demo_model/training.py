"""The training loop: what is minimised, by which optimiser, on which schedule.

The loss is the weighted cross-entropy of the next token, plus a small second task: from the mean
of the states over a question, say which entry it asks for. That second task pulls phrasings of
one question together, which is what an unseen phrasing needs, and makes the mean of the states a
usable embedding. Its classifier is not part of the exported model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.demo_model.network import Llama
from tools.demo_model.sampler import IGNORE, Batch, Sampler

Progress = Callable[[int, float, float], None]  # step, share done, smoothed loss


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    steps: int
    minutes: float | None = None  # a limit that ends the schedule earlier
    matrix_rate: float = 0.005
    vector_rate: float = 0.004
    decay: float = 0.1
    warmup: int = 60
    cluster_weight: float = 0.2
    device: str = "cpu"
    bfloat16: bool = True


def train(model: Llama, sampler: Sampler, entries: int, plan: Plan, progress: Progress) -> int:
    """Train `model` in place, on the planned device; returns the number of steps taken."""
    model.to(plan.device)
    classifier = nn.Linear(model.config.d_model, entries).to(plan.device)
    matrices = [p for b in model.blocks for p in b.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in [*model.parameters(), *classifier.parameters()] if id(p) not in chosen]
    # Muon orthogonalises each matrix's step: on this task it needs far fewer steps than AdamW.
    optimisers: list[tuple[torch.optim.Optimizer, float]] = [
        (
            torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=plan.decay),
            plan.matrix_rate,
        ),
        (
            torch.optim.AdamW(others, lr=plan.vector_rate, betas=(0.9, 0.98), weight_decay=0.01),
            plan.vector_rate,
        ),
    ]
    began = time.monotonic()
    smooth = 0.0
    model.train()
    for step in range(plan.steps):
        done = _share_done(step, plan, time.monotonic() - began)
        if done >= 1.0:
            return step
        rate = _rate(step, done, plan.warmup)
        for optimiser, base in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = base * rate
        with torch.autocast(plan.device, torch.bfloat16, enabled=plan.bfloat16):
            token_loss, cluster_loss = losses(model, classifier, sampler.batch().to(plan.device))
        loss = token_loss + plan.cluster_weight * cluster_loss
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimiser, _ in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        value = float(token_loss.detach())
        smooth = value if step == 0 else 0.98 * smooth + 0.02 * value
        progress(step + 1, done, smooth)
    return plan.steps


def losses(model: Llama, classifier: nn.Linear, batch: Batch) -> tuple[Tensor, Tensor]:
    """Weighted loss of the next token, and of the entry that the question asks for."""
    hidden = model.hidden(batch.inputs)
    counted = batch.weights > 0
    logits = model.logits(hidden[counted]).float()
    each = functional.cross_entropy(logits, batch.targets[counted], reduction="none")
    weights = batch.weights[counted]
    # Divided by the number of tokens, not by their weight: prose must stay a light batch.
    token_loss = (each * weights).sum() / max(1, int(counted.sum()))
    labelled = batch.labels != IGNORE
    if not bool(labelled.any()):
        return token_loss, torch.zeros((), device=token_loss.device)
    mask = batch.question_mask[labelled].unsqueeze(-1)
    pooled = (hidden[labelled].float() * mask).sum(1) / mask.sum(1).clamp(min=1)
    cluster_loss = functional.cross_entropy(classifier(pooled).float(), batch.labels[labelled])
    return token_loss, cluster_loss


def _share_done(step: int, plan: Plan, elapsed: float) -> float:
    by_steps = step / plan.steps
    if plan.minutes is None:
        return by_steps
    return max(by_steps, elapsed / (plan.minutes * 60))


def _rate(step: int, done: float, warmup: int) -> float:
    """Warm up, stay, then fall to nothing over the last part."""
    if step < warmup:
        return (step + 1) / warmup
    if done < 0.4:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (done - 0.4) / 0.6)) + 0.01
