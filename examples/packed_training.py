"""FusedAIF in a model of one's own: packed sequences, a global decision for every token.

    python examples/packed_training.py

Sequences of tokens 0 and 1 are packed into rows (N, E), as for FlashAttention's varlen interface: `cu_seqlens` (B+1,)
int32 says where each begins. A token is to be marked if it is of the kind that its sequence holds more of. A model that
sees tokens one by one cannot know; AIF's gate does, by its global branch. On a GPU the kernels run, under bfloat16
autocast and compiled; the code is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlfa_kernels import FusedAIF


class Marker(nn.Module):
    """Two layers over embeddings, their states fused by AIF or added, and a score for every row."""

    def __init__(self, fused: bool, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.aif = FusedAIF(width) if fused else None
        self.score = nn.Linear(width, 1)

    def forward(self, tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
        """(N,) scores of packed tokens (N,)."""
        lower = self.layers[0](self.embedding(tokens)).relu()
        last = self.layers[1](lower)
        fused = last + lower if self.aif is None else self.aif(last, lower, cu_seqlens=cu_seqlens)
        return self.score(fused).squeeze(-1)


def batch(sequences: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Packed tokens (N,), cu_seqlens (B+1,) int32, and whether each token is of its sequence's commoner kind (N,)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 2 * torch.randint(0, 10, (sequences,), generator=generator) + 1  # odd: one kind is the commoner
    cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).int()
    tokens = torch.randint(0, 2, (int(cu_seqlens[-1]),), generator=generator)
    owner = torch.arange(sequences).repeat_interleave(lengths)
    ones = torch.zeros(sequences).index_add(0, owner, tokens.float())
    marked = tokens == (2 * ones > lengths).long()[owner]
    return tokens.to(device), cu_seqlens.to(device), marked.to(device)


def accuracy(fused: bool, steps: int = 300) -> float:
    """Train, and return the share of tokens of new sequences that are marked rightly."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model: nn.Module = Marker(fused).to(device)
    if device.type == "cuda":
        model = torch.compile(model, fullgraph=True, dynamic=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        tokens, cu_seqlens, marked = batch(64, step, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            scores = model(tokens, cu_seqlens)
        loss = nn.functional.binary_cross_entropy_with_logits(scores.float(), marked.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens, cu_seqlens, marked = batch(1000, 10**6, device)
    with torch.no_grad():
        return float(((model(tokens, cu_seqlens) > 0) == marked).float().mean())


if __name__ == "__main__":
    for fused, name in ((False, "sum"), (True, "AIF")):
        print(f"{name}: {accuracy(fused):.1%} of the tokens marked rightly")
