"""The training step of benches/bilstm.rs in PyTorch: batch 32, 128 time steps, 512 -> 2 x 256, 21 labels. Prints one line of JSON."""
from torch import nn

from steps import INPUTS, LABELS, measure, x

HIDDEN = 256
lstm = nn.LSTM(INPUTS, HIDDEN, batch_first=True, bidirectional=True)
head = nn.Sequential(nn.Dropout(0.5), nn.Linear(2 * HIDDEN, LABELS))
measure([*lstm.parameters(), *head.parameters()], lambda: head(lstm(x)[0].max(1).values))
