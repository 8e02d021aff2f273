"""The training step of benches/attentive.rs in PyTorch: batch 32, 128 rows, 512 features, 8 heads, 21 labels. Prints one line of JSON."""
import torch
from torch import nn

from steps import CLIPS, INPUTS, LABELS, measure, x

query = nn.Parameter(torch.randn(1, 1, INPUTS) * 0.02)
attention = nn.MultiheadAttention(INPUTS, 8, batch_first=True)
head = nn.Sequential(nn.LayerNorm(INPUTS), nn.Dropout(0.5), nn.Linear(INPUTS, LABELS))
parameters = [query, *attention.parameters(), *head.parameters()]
measure(parameters, lambda: head(attention(query.expand(CLIPS, -1, -1), x, x, need_weights=False)[0][:, 0]))
