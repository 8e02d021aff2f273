#!/usr/bin/env python3
"""Reference values of the classifiers with attention from PyTorch, in f64 -> fixtures/attention.safetensors.

- attentive, attentive.dim: one learned query, MultiheadAttention over the rows of clips of different lengths, LayerNorm, linear; with
  `embed_dim` equal to the number of features, and another one (`kdim`, `vdim`).
- transformer.mean, transformer.cls: linear projection (cls only), learned positions, TransformerEncoderLayer (norm_first=False, GELU, dropout 0),
  mean of the rows or a learned first row, linear.

Each with its parameters, the logits, binary cross-entropy and all gradients, and the parameters after three steps of AdamW. The
projections of MultiheadAttention are stored as q_proj_weight, k_proj_weight and v_proj_weight.
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures"
torch.set_default_dtype(torch.float64)
torch.manual_seed(12)
LENGTHS, INPUTS, CLASSES = [3, 7, 1, 5, 7], 6, 3
ROWS = [torch.randn(n, INPUTS) for n in LENGTHS]
TARGETS = (torch.rand(len(LENGTHS), CLASSES) < 0.5).double()
PADDED = nn.utils.rnn.pad_sequence(ROWS, batch_first=True)
PADDING = torch.arange(max(LENGTHS)) >= torch.tensor(LENGTHS)[:, None]


class Attentive(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.attention = nn.MultiheadAttention(width, heads, kdim=INPUTS, vdim=INPUTS, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, CLASSES)

    def forward(self):
        attended, _ = self.attention(self.query.expand(len(LENGTHS), -1, -1), PADDED, PADDED, key_padding_mask=PADDING)
        return self.linear(self.norm(attended[:, 0]))


class Transformer(nn.Module):
    def __init__(self, width, heads, hidden, cls):
        super().__init__()
        self.projection = nn.Linear(INPUTS, width) if width != INPUTS else None
        self.positions = nn.Parameter(torch.randn(max(LENGTHS), width))
        self.cls = nn.Parameter(torch.randn(width)) if cls else None
        self.layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=False)
        self.linear = nn.Linear(width, CLASSES)

    def forward(self):
        x, padding = PADDED if self.projection is None else self.projection(PADDED), PADDING
        x = x + self.positions
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), 1, -1), x], 1)
            padding = torch.cat([torch.zeros(len(x), 1, dtype=torch.bool), padding], 1)
        x = self.layer(x, src_key_padding_mask=padding)
        if self.cls is not None:
            return self.linear(x[:, 0])
        return self.linear((x * ~padding[..., None]).sum(1) / torch.tensor(LENGTHS)[:, None])


def split(name, value):
    """The tensors of a parameter, with the projections of self-attention apart."""
    if not name.endswith("in_proj_weight"):
        return {name: value}
    prefix = name.removesuffix("in_proj_weight")
    return {f"{prefix}{key}_proj_weight": part for key, part in zip("qkv", value.chunk(3))}


out = {"rows": torch.cat(ROWS), "lengths": torch.tensor(LENGTHS).double(), "targets": TARGETS}
for prefix, module in {
    "attentive": Attentive(INPUTS, 2),
    "attentive.dim": Attentive(8, 4),
    "transformer.mean": Transformer(INPUTS, 3, 5, False),
    "transformer.cls": Transformer(4, 2, 7, True),
}.items():
    with torch.no_grad():  # no parameter starts at 0 or 1
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))

    def keep(kind, values):
        for name, value in values.items():
            out.update({f"{prefix}.{kind}{key}": part.clone() for key, part in split(name, value.detach()).items()})

    keep("", dict(module.named_parameters()))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        logits = module()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, TARGETS)
        loss.backward()
        if step == 0:
            out[f"{prefix}.logits"], out[f"{prefix}.loss"] = logits.detach(), loss.detach().reshape(1)
            keep("gradient.", {name: parameter.grad for name, parameter in module.named_parameters()})
        optimizer.step()
    keep("after.", dict(module.named_parameters()))

save_file({key: value.contiguous() for key, value in out.items()}, OUT / "attention.safetensors", {"made_by": f"tests/goldens/attention.py, torch {torch.__version__.split('+')[0]}"})
print(f"{OUT / 'attention.safetensors'}: torch {torch.__version__}", file=sys.stderr)
