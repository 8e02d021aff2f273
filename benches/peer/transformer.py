"""The training step of benches/transformer.rs in PyTorch: batch 32, 128 rows, 512 features, 8 heads, 1024 hidden units, 21 labels. Prints one
line of JSON."""
import torch
from torch import nn

from steps import INPUTS, LABELS, LENGTH, measure, x

positions = nn.Parameter(torch.randn(1, LENGTH, INPUTS) * 0.02)
encoder = nn.TransformerEncoderLayer(INPUTS, 8, 1024, 0.1, "gelu", batch_first=True)
encoder.self_attn.dropout = 0.0  # ours has no dropout of the weights of the attention
head = nn.Linear(INPUTS, LABELS)
parameters = [positions, *encoder.parameters(), *head.parameters()]
measure(parameters, lambda: head(encoder(x + positions).mean(dim=1)))
