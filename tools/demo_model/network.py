"""The network: llama's architecture at a size that trains on two CPU cores.

RMSNorm before each block, rotary positions, grouped-query attention, SwiGLU, and one matrix for
both ends of the vocabulary. Two conventions are llama.cpp's and must stay so, or the exported
model speaks nonsense: rotary pairs are neighbours (2i, 2i+1) in each head, and a missing output
matrix means that the embeddings are used.

Shapes: B sequences of T tokens, D model width, H heads of width K = D / H, V tokens.
"""

# Without torch installed its classes are Any to mypy, and a subclass of Any is an error.
# mypy: disable-error-code="misc"

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Config:
    """Sizes of the network. Widths must be multiples of 32, the block of Q8_0."""

    vocab_size: int
    d_model: int = 192
    n_layers: int = 4
    n_heads: int = 3
    n_kv_heads: int = 1
    d_ff: int = 512
    context: int = 2048
    rope_base: float = 10000.0
    eps: float = 1e-5
    dropout: float = 0.15

    @property
    def head_dim(self) -> int:
        """K, the width of one head."""
        return self.d_model // self.n_heads


class RMSNorm(nn.Module):
    """Scale each vector to unit root mean square, then by a learned weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`x` and the result are [B, T, D]."""
        wide = x.float()
        return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rotary_table(config: Config, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each [length, K/2]."""
    step = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angle = torch.outer(torch.arange(length, dtype=torch.float32), config.rope_base**-step)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of `x` [B, H, T, K] by their position's angle."""
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention; several query heads share one key and value head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.k = config.n_heads, config.n_kv_heads, config.head_dim
        self.q = nn.Linear(config.d_model, self.heads * self.k, bias=False)
        self.kv = nn.Linear(config.d_model, 2 * self.kv_heads * self.k, bias=False)
        self.out = nn.Linear(self.heads * self.k, config.d_model, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`x` and the result are [B, T, D]; `cos` and `sin` are [T, K/2]."""
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.k).transpose(1, 2)
        key, value = self.kv(x).view(b, t, 2, self.kv_heads, self.k).permute(2, 0, 3, 1, 4)
        q, key = rotate(q, cos, sin), rotate(key, cos, sin)
        # Written out: on rows this short torch's fused attention takes several times as long.
        shared = self.heads // self.kv_heads
        key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
        later = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        scores = (q @ key.transpose(-1, -2)) * self.k**-0.5
        y = scores.masked_fill(later, float("-inf")).softmax(-1).to(value.dtype) @ value
        out: Tensor = self.out(y.transpose(1, 2).reshape(b, t, self.heads * self.k))
        return out


class Block(nn.Module):
    """Attention, then SwiGLU, each added to what came in."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(config.d_model, config.eps)
        self.attn = Attention(config)
        self.ffn_norm = RMSNorm(config.d_model, config.eps)
        self.gate_up = nn.Linear(config.d_model, 2 * config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`x` and the result are [B, T, D]; `cos` and `sin` are [T, K/2]."""
        x = x + self.drop(self.attn(self.attn_norm(x), cos, sin))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.drop(self.down(functional.silu(gate) * up))


class Llama(nn.Module):
    """The whole network."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.eps)
        self.drop = nn.Dropout(config.dropout)
        cos, sin = rotary_table(config, config.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._init()

    def _init(self) -> None:
        nn.init.normal_(self.embed.weight, std=0.04)
        # The last matrix of each branch starts small, so that depth does not grow the residual.
        small = 0.5 / (2 * self.config.n_layers) ** 0.5
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5 * 0.6
                nn.init.normal_(module.weight, std=std * (small if "out" in name else 1.0))

    def hidden(self, tokens: Tensor) -> Tensor:
        """Normed states [B, T, D] for `tokens` [B, T]."""
        t = tokens.shape[1]
        assert isinstance(self.cos, Tensor)
        assert isinstance(self.sin, Tensor)
        x = self.drop(self.embed(tokens))
        for block in self.blocks:
            x = block(x, self.cos[:t], self.sin[:t])
        normed: Tensor = self.norm(x)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary [..., V] for states [..., D]."""
        return functional.linear(hidden, self.embed.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores [B, T, V] for `tokens` [B, T]."""
        return self.logits(self.hidden(tokens))
