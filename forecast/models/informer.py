"""Informer: an encoder-decoder that attends with few queries and forecasts all rows at once.

Source: Zhou et al., "Informer: Beyond Efficient Transformer for Long Sequence Time-Series
Forecasting", AAAI 2021, arXiv 2012.07436, sections 3 and 4 and appendix B. The attention follows
the paper where its public code does not (`kernels/probsparse`). From that code come the batch norm
in the distilling step, the single encoder with 8 heads and the convolution of the values; from
later copies of it, embeddings without bias. Cross-attention is full, as in the paper.

Letters: B batch, L lookback, H horizon, C variates, F calendar features, T tokens, D width,
Q quantiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from forecast.batch import Forecast, SeriesBatch, Spec
from forecast.errors import UsageError
from forecast.kernels.attention import attention
from forecast.kernels.probsparse import Mode, probsparse
from forecast.layers import Dropout, Quantile, check_quantiles, forecast_error, rising


@dataclass(frozen=True, kw_only=True, slots=True)
class InformerConfig:
    """Config of Informer: its size and its attention.

    Attributes:
        width: D, size of a token; a multiple of `heads`.
        feed_forward: inner width of the feed-forward layers.
        heads: number of attention heads.
        encoder_layers: layers of the encoder, with a distilling step after each but the last.
        decoder_layers: layers of the decoder.
        factor: c of the paper; `c * ceil(ln T)` queries attend, and as many keys are sampled.
        dropout: probability of zeroing an element of an embedding, a layer's output or an
            attention weight.
        label_length: past rows that open the decoder's input; None takes half the lookback.
        attention: how the active queries are found in training (see `kernels.probsparse`).
        evaluation_attention: the same in evaluation and prediction.
        distil: halve the encoder's tokens between its layers.
        distil_norm: norm inside the distilling step.
        stack: layers of several encoders side by side, `(3, 1)` in the paper's ablation. The
            deepest reads the whole window, one with n layers fewer its last `L / 2**n` rows, and
            the outputs are joined in time. Empty takes one encoder of `encoder_layers`.
        quantiles: levels to forecast, the median 0.5 among them; empty forecasts one value.
    """

    width: Annotated[int, Field(ge=1)] = 512
    feed_forward: Annotated[int, Field(ge=1)] = 2048
    heads: Annotated[int, Field(ge=1)] = 8
    encoder_layers: Annotated[int, Field(ge=1)] = 2
    decoder_layers: Annotated[int, Field(ge=1)] = 1
    factor: Annotated[int, Field(ge=1)] = 5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    label_length: Annotated[int, Field(ge=0)] | None = None
    attention: Mode = "shared"
    evaluation_attention: Mode = "exact"
    distil: bool = True
    distil_norm: Literal["batch", "layer"] = "batch"
    stack: tuple[Annotated[int, Field(ge=1)], ...] = ()
    quantiles: tuple[Quantile, ...] = ()


class Embedding(nn.Module):
    """Turn rows into tokens: values with their neighbours, position, and calendar."""

    positions: Tensor

    def __init__(self, config: InformerConfig, spec: Spec, longest: int) -> None:
        super().__init__()
        width = config.width
        self.values = nn.Conv1d(
            spec.variates, width, kernel_size=3, padding=1, padding_mode="circular", bias=False
        )
        nn.init.kaiming_normal_(self.values.weight, a=0.01, nonlinearity="leaky_relu")
        self.calendar = nn.Linear(spec.calendar, width, bias=False) if spec.calendar else None
        self.dropout = Dropout(config.dropout)
        self.register_buffer("positions", sinusoids(longest, width), persistent=False)

    def forward(
        self, rows: Float[Tensor, "B T C"], time: Float[Tensor, "B T F"] | None
    ) -> Float[Tensor, "B T D"]:
        """Embed rows that stand at the positions 0 to T - 1."""
        tokens = self.values(rows.transpose(1, 2)).transpose(1, 2) + self.positions[: rows.shape[1]]
        if self.calendar is not None:
            assert time is not None
            tokens = tokens + self.calendar(time)
        return self.dropout(tokens)


class Attention(nn.Module):
    """Project tokens to heads, attend, and project back."""

    def __init__(self, config: InformerConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.project_query = nn.Linear(width, width)
        self.project_key_value = nn.Linear(width, 2 * width)
        self.project_out = nn.Linear(width, width)

    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        context: Float[Tensor, "B S D"] | None = None,
        *,
        causal: bool = False,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend to the tokens themselves by ProbSparse attention, or to a context in full."""
        config = self.config
        batch, length, width = tokens.shape
        shape = (batch, -1, config.heads, width // config.heads)
        source = tokens if context is None else context
        key, value = self.project_key_value(source).split(width, dim=-1)
        query = self.project_query(tokens).view(shape).transpose(1, 2)
        key, value = (x.view(shape).transpose(1, 2) for x in (key, value))
        dropout = config.dropout if self.training else 0.0
        if context is None:
            mode = config.attention if self.training else config.evaluation_attention
            mixed = probsparse(
                query, key, value, mode=mode, factor=config.factor, causal=causal,
                dropout=dropout, generator=generator,
            )  # fmt: skip
        else:
            mixed = attention(query, key, value, dropout=dropout)
        return self.project_out(mixed.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """Map each token by itself, with residual and norm after."""

    def __init__(self, config: InformerConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, config.feed_forward)
        self.contract = nn.Linear(config.feed_forward, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return as many tokens as came."""
        inner = self.dropout(nn.functional.gelu(self.expand(tokens)))
        return self.norm(self.dropout(self.contract(inner), residual=tokens))


class EncoderLayer(nn.Module):
    """Mix the tokens by ProbSparse attention, then each by itself."""

    def __init__(self, config: InformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)
        self.feed_forward = FeedForward(config)

    def forward(
        self, tokens: Float[Tensor, "B T D"], generator: torch.Generator
    ) -> Float[Tensor, "B T D"]:
        """Return as many tokens as came."""
        mixed = self.attention(tokens, generator=generator)
        return self.feed_forward(self.norm(self.dropout(mixed, residual=tokens)))


class Distil(nn.Module):
    """Halve the number of tokens: convolution, norm, ELU, maximum over three with stride two."""

    def __init__(self, config: InformerConfig) -> None:
        super().__init__()
        width = config.width
        self.mix = nn.Conv1d(width, width, kernel_size=3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm1d(width) if config.distil_norm == "batch" else nn.LayerNorm(width)
        self.pool = nn.MaxPool1d(kernel_size=3, stride=2, padding=1)

    def forward(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T2 D"]:
        """Return `ceil(T / 2)` tokens."""
        mixed = self.mix(tokens.transpose(1, 2))  # (B, D, T)
        if isinstance(self.norm, nn.LayerNorm):
            mixed = self.norm(mixed.transpose(1, 2)).transpose(1, 2)
        else:
            mixed = self.norm(mixed)
        return self.pool(nn.functional.elu(mixed)).transpose(1, 2)


class Encoder(nn.Module):
    """Run layers with a distilling step between each two."""

    def __init__(self, config: InformerConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(layers))
        steps = layers - 1 if config.distil else 0
        self.distils = nn.ModuleList(Distil(config) for _ in range(steps))
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, tokens: Float[Tensor, "B T D"], generator: torch.Generator
    ) -> Float[Tensor, "B S D"]:
        """Return `ceil(T / 2**steps)` tokens, one halving at a time."""
        for number, layer in enumerate(self.layers):
            tokens = layer(tokens, generator)
            if number < len(self.distils):
                tokens = self.distils[number](tokens)
        return self.norm(tokens)


class DecoderLayer(nn.Module):
    """Mix the tokens by causal ProbSparse attention, read the encoder, then each by itself."""

    def __init__(self, config: InformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm = nn.LayerNorm(config.width)
        self.cross = Attention(config)
        self.norm_cross = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        context: Float[Tensor, "B S D"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B T D"]:
        """Return as many tokens as came."""
        mixed = self.attention(tokens, causal=True, generator=generator)
        tokens = self.norm(self.dropout(mixed, residual=tokens))
        tokens = self.norm_cross(self.dropout(self.cross(tokens, context), residual=tokens))
        return self.feed_forward(tokens)


class Informer(nn.Module):
    """Forecast C variates together from their past and the calendar.

    In training the keys that find the active queries are drawn from a generator of the model's own,
    seeded with torch's seed at construction. Its state is part of `state_dict` as a byte tensor, so
    that training resumes with the draws it would have made.
    """

    # Every batch goes through all blocks.
    same_path = True

    def __init__(self, config: InformerConfig, spec: Spec) -> None:
        super().__init__()
        label = spec.lookback // 2 if config.label_length is None else config.label_length
        if label > spec.lookback:
            raise UsageError(
                f"model.label_length = {label} is more than the lookback of {spec.lookback} rows.",
                hint="Choose at most the lookback; half of it is the default.",
            )
        if config.width % 2 or config.width % config.heads:
            raise UsageError(
                f"model.width = {config.width} is not even, or no multiple of model.heads = "
                f"{config.heads}.",
                hint="Choose an even width that the number of heads divides.",
            )
        self.label, self.horizon, self.quantiles = label, spec.horizon, config.quantiles
        self.embed_past = Embedding(config, spec, spec.lookback)
        self.embed_future = Embedding(config, spec, label + spec.horizon)
        depths = config.stack or (config.encoder_layers,)
        self.encoders = nn.ModuleList(Encoder(config, depth) for depth in depths)
        self.halvings = [max(depths) - depth for depth in depths]
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, spec.variates * check_quantiles(config.quantiles))
        self.generator = torch.Generator().manual_seed(torch.initial_seed())

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast every variate of every window.

        Returns:
            Values (B, H, C), or (B, H, C, Q) with quantiles, in the scaled space of the batch.
        """
        past, time = batch.past, batch.past_time  # (B, L, C), (B, L, F)
        lookback = past.shape[1]
        tokens = self.embed_past(past, time)  # (B, L, D)
        context = torch.cat(
            [
                encoder(tokens[:, -math.ceil(lookback / 2**halvings) :], self.generator)
                for encoder, halvings in zip(self.encoders, self.halvings, strict=True)
            ],
            dim=1,
        )
        start = past[:, lookback - self.label :]
        rows = nn.functional.pad(start, (0, 0, 0, self.horizon))  # (B, label + H, C)
        if time is not None and batch.future_time is not None:
            time = torch.cat([time[:, lookback - self.label :], batch.future_time], dim=1)
        tokens = self.embed_future(rows, time)
        for layer in self.decoder:
            tokens = layer(tokens, context, self.generator)
        values = self.head(self.norm(tokens[:, self.label :]))
        if self.quantiles:
            values = rising(values.unflatten(2, (-1, len(self.quantiles))), self.quantiles)
        return Forecast(values=values, quantiles=self.quantiles)

    def loss(self, batch: SeriesBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum the losses over observed targets, and count those."""
        return forecast_error(self(batch), batch)

    def get_extra_state(self) -> Tensor:
        """Return the state of the generator that draws keys."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the generator that draws keys."""
        self.generator.set_state(state.cpu())


def sinusoids(length: int, width: int) -> Float[Tensor, "length width"]:
    """Encode positions by sines and cosines of wavelengths from 2 pi to 20000 pi."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.arange(length).unsqueeze(1) * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).view(length, width)
