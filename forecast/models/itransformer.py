"""iTransformer: attention over variates, each one's whole lookback window being one token.

Source: Liu et al., "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting",
ICLR 2024, arXiv 2310.06625, sections 3.1 to 3.3. Where the authors' code and the paper differ in
cost alone (a convolution of width 1 for a linear map, mark tokens carried to the end and thrown
away), the cheaper equal form is used here.

Letters: B batch, L lookback, H horizon, C variates, F calendar features, P past covariates,
K covariates known in advance, G static features, T = C + F + P (+ K + 1) tokens, D width,
Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from forecast.batch import Forecast, SeriesBatch, Spec
from forecast.errors import UsageError
from forecast.kernels.attention import attention
from forecast.layers import (
    Dropout,
    Quantile,
    check_quantiles,
    forecast_error,
    rising,
    window_statistics,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ITransformerConfig:
    """Config of iTransformer.

    Attributes:
        width: D, size of a token; a multiple of `heads`.
        feed_forward: width of the feed-forward layer; None takes `width`.
        layers: number of encoder layers.
        heads: number of attention heads.
        dropout: probability of zeroing an element of an embedding or of a layer's output.
        attention_dropout: the same for attention weights; None takes `dropout`. Set it to 0 for
            hundreds of variates, where drawing the masks costs more than the products.
        window_norm: scale every window by its own mean and deviation (the paper's `use_norm`).
        quantiles: levels to forecast, the median 0.5 among them; empty forecasts one value.
    """

    width: Annotated[int, Field(ge=1)] = 128
    feed_forward: Annotated[int, Field(ge=1)] | None = None
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    window_norm: bool = True
    quantiles: tuple[Quantile, ...] = ()


class EncoderLayer(nn.Module):
    """Mix the tokens by attention, then each token by itself, both with residual and norm after."""

    def __init__(self, config: ITransformerConfig) -> None:
        super().__init__()
        width, inner = config.width, config.feed_forward or config.width
        self.heads = config.heads
        self.attention_dropout = (
            config.dropout if config.attention_dropout is None else config.attention_dropout
        )
        self.project_query = nn.Linear(width, width)
        self.project_key_value = nn.Linear(width, 2 * width)
        self.project_out = nn.Linear(width, width)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Float[Tensor, "B T D"], kept: int) -> Float[Tensor, "B kept D"]:
        """Return the first `kept` tokens; the others only give keys and values."""
        batch, _, width = tokens.shape
        shape = (batch, -1, self.heads, width // self.heads)
        key, value = self.project_key_value(tokens).split(width, dim=-1)
        tokens = tokens[:, :kept]
        query = self.project_query(tokens)
        mixed = attention(
            query.view(shape).transpose(1, 2),
            key.view(shape).transpose(1, 2),
            value.view(shape).transpose(1, 2),
            dropout=self.attention_dropout if self.training else 0.0,
        )  # (B, heads, kept, D / heads)
        mixed = mixed.transpose(1, 2).reshape(batch, kept, width)
        tokens = self.norm_attention(self.dropout(self.project_out(mixed), residual=tokens))
        inner = self.dropout(nn.functional.gelu(self.expand(tokens)))
        return self.norm_feed_forward(self.dropout(self.contract(inner), residual=tokens))


class ITransformer(nn.Module):
    """Forecast C variates together, from any number of variates.

    The weights do not depend on C: permuting the variates permutes the forecasts, and a trained
    model takes more or fewer of them.
    """

    # Every batch goes through all blocks.
    same_path = True

    def __init__(self, config: ITransformerConfig, spec: Spec) -> None:
        super().__init__()
        if config.width % config.heads:
            raise UsageError(
                f"model.width = {config.width} is not a multiple of model.heads = {config.heads}.",
                hint="Choose a width that the number of heads divides.",
            )
        self.config = config
        self.embed = nn.Linear(spec.lookback, config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, spec.horizon * check_quantiles(config.quantiles))
        self.dropout = Dropout(config.dropout)
        # Not in the paper: the future of each covariate known in advance is one more token, and so
        # are the static features.
        future, static = spec.known_future, spec.static
        self.embed_known = nn.Linear(spec.horizon, config.width) if future else None
        self.embed_static = nn.Linear(static, config.width) if static else None

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast every variate of every window.

        Returns:
            Values (B, H, C), or (B, H, C, Q) with quantiles, in the scaled space of the batch.
        """
        past = batch.past  # (B, L, C)
        variates = past.shape[2]
        mean, deviation = None, None
        if self.config.window_norm:
            mean, deviation = window_statistics(past, batch.past_mask)
            past = (past - mean) / deviation
            if batch.past_mask is not None:
                past = past * batch.past_mask
        rows = [past]
        rows += [part for part in (batch.past_time, batch.past_covariates) if part is not None]
        windows = torch.cat([part.transpose(1, 2) for part in rows], dim=1)  # (B, T, L)
        tokens = self.embed(windows)  # (B, T, D)
        if self.embed_known is not None:
            assert batch.known_future is not None
            known = self.embed_known(batch.known_future.transpose(1, 2))  # (B, K, D)
            tokens = torch.cat([tokens, known], dim=1)
        if self.embed_static is not None:
            assert batch.static is not None
            tokens = torch.cat([tokens, self.embed_static(batch.static)[:, None]], dim=1)
        tokens = self.dropout(tokens)
        for number, layer in enumerate(self.encoder, start=1):
            # Calendar and covariate tokens are read by the last layer but not carried through it.
            kept = variates if number == len(self.encoder) else tokens.shape[1]
            tokens = layer(tokens, kept)
        values = self.head(self.norm(tokens)).transpose(1, 2)  # (B, H, C)
        quantiles = self.config.quantiles
        if quantiles:
            values = rising(values.unflatten(1, (-1, len(quantiles))).transpose(2, 3), quantiles)
        if mean is not None and deviation is not None:
            if quantiles:
                mean, deviation = mean[..., None], deviation[..., None]
            values = values * deviation + mean
        return Forecast(values=values, quantiles=quantiles)

    def loss(self, batch: SeriesBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum the losses over observed targets, and count those."""
        return forecast_error(self(batch), batch)
