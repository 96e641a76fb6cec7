"""A small GPT that predicts the next character."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from stdlib_text import VOCABULARY
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override


class CharGPT(LightningModule):
    """A pre-norm transformer decoder over characters; input and output embedding are shared.

    Args:
        width: Features of a character.
        depth: Transformer blocks.
        heads: Attention heads in a block.
        context: Longest text it can read.
        learning_rate: Peak of the schedule: a short warm-up, then a cosine down to a tenth.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        context: int = 64,
        learning_rate: float = 8e-3,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.character = nn.Embedding(VOCABULARY, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # What is added to the residual stream starts smaller, as in GPT-2.
                is_residual = name.endswith(("merge.weight", "shrink.weight"))
                scale = (2 * depth) ** -0.5 if is_residual else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    @override
    def forward(self, text: Tensor) -> Tensor:
        features = self.character(text) + self.position.weight[: text.shape[1]]
        return F.linear(self.norm(self.blocks(features)), self.character.weight)

    @override
    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self._loss(batch)

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("val_loss", self._loss(batch), sync_dist=True)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, betas=(0.9, 0.95))
        total = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        text, following = batch
        return F.cross_entropy(self(text).flatten(0, 1), following.flatten())


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each added to its input.

    Args:
        width: Features of a character.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.feed_norm = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    @override
    def forward(self, features: Tensor) -> Tensor:
        features = features + self.merge(self._attend(self.attention_norm(features)))
        fed: Tensor = self.shrink(F.gelu(self.grow(self.feed_norm(features))))
        return features + fed

    def _attend(self, features: Tensor) -> Tensor:
        heads = self.query_key_value(features).unflatten(2, (3, self.heads, -1)).transpose(1, 3)
        query, key, value = heads.unbind(2)
        mixed: Tensor = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).flatten(2)


def pace(step: int, total: float, *, warm_up: float = 0.03, floor: float = 0.1) -> float:
    """Return the learning rate at `step` of `total`, as a part of its peak."""
    done = min(1.0, step / total)
    rise = min(1.0, (step + 1) / (warm_up * total))
    return rise * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done)))
