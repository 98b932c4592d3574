"""A vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) and BERT (Devlin et al. 2018, arXiv 1810.04805)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PreNormBlock(nn.Module):
    """x + attention(norm x), then the same with a perceptron: attention reads normalised values alone."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.LayerNorm(width, eps=1e-6)
        self.attention = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        self.second = nn.LayerNorm(width, eps=1e-6)
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, width), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.first(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return x + self.perceptron(self.second(x))


class VisionTransformer(nn.Module):
    """Patches and a class token through blocks that normalise first; the class token is classified."""

    def __init__(
        self, *, image: int, patch: int, width: int, heads: int, hidden: int, depth: int, classes: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(PreNormBlock(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1) + self.positions
        return self.classifier(self.norm(self.blocks(x))[:, 0])


class SelfAttention(nn.Module):
    """softmax(q kᵀ / √d) v per head, spelt out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dropout = nn.Dropout(0.1)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.size).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self.split(part(x)) for part in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.size)
        mixed = torch.matmul(self.dropout(scores.softmax(-1)), value)
        return mixed.permute(0, 2, 1, 3).reshape(x.shape)


class PostNormBlock(nn.Module):
    """norm(x + attention(x)), then the same with a perceptron."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(SelfAttention(width, heads), nn.Linear(width, width), nn.Dropout(0.1))
        self.first = nn.LayerNorm(width, eps=1e-12)
        self.perceptron = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width), nn.Dropout(0.1))
        self.second = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x + self.attention(x))
        return self.second(x + self.perceptron(x))


class Bert(nn.Module):
    """Embedded tokens to the classes of the first token's pooled state."""

    def __init__(self, *, tokens: int, width: int, heads: int, hidden: int, depth: int, classes: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(tokens, width)
        self.register_buffer("places", torch.arange(tokens).unsqueeze(0))
        self.kind = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(PostNormBlock(width, heads, hidden) for _ in range(depth)))
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, embedded: Tensor) -> Tensor:
        x = self.dropout(self.norm(embedded + self.positions(self.places) + self.kind))
        return self.classifier(self.dropout(self.pooler(self.blocks(x)[:, 0]).tanh()))


class BertOfTokens(nn.Module):
    """The same from token numbers on."""

    def __init__(self, words: int, encoder: Bert) -> None:
        super().__init__()
        self.words = nn.Embedding(words, encoder.pooler.in_features)
        self.encoder = encoder

    def forward(self, numbers: Tensor) -> Tensor:
        return self.encoder(self.words(numbers))
