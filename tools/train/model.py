"""The llama architecture in PyTorch: RMSNorm, rotary positions on neighbouring pairs, grouped
query attention, SwiGLU, output matrix tied to the embedding."""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    n_vocab: int = 2048
    n_embd: int = 256
    n_ff: int = 768
    n_layer: int = 4
    n_head: int = 4
    n_head_kv: int = 2
    n_context: int = 512
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_size(self):
        return self.n_embd // self.n_head


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, cos, sin):
    """Turns the pairs (x[2i], x[2i+1]); x is [batch, heads, tokens, head_size]."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        linear = lambda n_in, n_out: nn.Linear(n_in, n_out, bias=False)
        self.attn_norm, self.ffn_norm = RMSNorm(c.n_embd, c.norm_eps), RMSNorm(c.n_embd, c.norm_eps)
        self.attn_q = linear(c.n_embd, c.n_head * c.head_size)
        self.attn_k = linear(c.n_embd, c.n_head_kv * c.head_size)
        self.attn_v = linear(c.n_embd, c.n_head_kv * c.head_size)
        self.attn_output = linear(c.n_head * c.head_size, c.n_embd)
        self.ffn_gate, self.ffn_up = linear(c.n_embd, c.n_ff), linear(c.n_embd, c.n_ff)
        self.ffn_down = linear(c.n_ff, c.n_embd)

    def forward(self, x, cos, sin, mask):
        c, (batch, tokens, _) = self.c, x.shape
        heads = lambda y, n: y.view(batch, tokens, n, c.head_size).transpose(1, 2)
        y = self.attn_norm(x)
        q = rotate(heads(self.attn_q(y), c.n_head), cos, sin)
        k = rotate(heads(self.attn_k(y), c.n_head_kv), cos, sin)
        v = heads(self.attn_v(y), c.n_head_kv)
        repeat = c.n_head // c.n_head_kv
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)
        x = x + self.attn_output(y.transpose(1, 2).reshape(batch, tokens, -1))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Embedding(c.n_vocab, c.n_embd)
        self.blk = nn.ModuleList(Block(c) for _ in range(c.n_layer))
        self.output_norm = RMSNorm(c.n_embd, c.norm_eps)
        angle = torch.outer(torch.arange(c.n_context).float(), c.rope_base ** (-torch.arange(0, c.head_size, 2).float() / c.head_size))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                shrink = (2 * c.n_layer) ** -0.5 if name.endswith(("attn_output.weight", "ffn_down.weight")) else 1.0
                nn.init.normal_(p, std=0.02 if "embd" in name else shrink * p.shape[1] ** -0.5)

    def forward(self, ids, mask=None):
        """ids [batch, tokens] -> logits [batch, tokens, n_vocab]; mask is true where a token may look."""
        tokens = ids.shape[1]
        if mask is None:
            mask = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        x = self.token_embd(ids)
        for block in self.blk:
            x = block(x, self.cos[:tokens], self.sin[:tokens], mask)
        return F.linear(self.output_norm(x), self.token_embd.weight)
