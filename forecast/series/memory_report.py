"""What a memory that learns does along a stream: numbers for the run, and a picture.

How far its values are from what it recalls (surprise), how much it writes and forgets, how long a
token lasts, and in how many directions its keys lie. A memory holds as many pairs as its keys have
directions, for as long as little is forgotten and written over.

Letters: H heads, T tokens, K key width, C variates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from forecast.batch import SeriesBatch
from forecast.batch.windows import Windows
from forecast.models.stateful.model import StatefulModel
from forecast.models.titans.layers import Memory, Readings
from forecast.models.titans.model import Titans
from forecast.recipe import Recipe
from forecast.series import pictures, rolling_origin
from forecast.series.data import SeriesData

# Streams that are looked at.
_MOST_STREAMS = 16


def memory(
    model: nn.Module, data: SeriesData, recipe: Recipe, folder: Path
) -> tuple[dict[str, Any], list[Path]]:
    """Follow the memories of a model over all rows up to the end of the test part.

    Returns:
        `memory`: the figures of each block, as `figures` gives them; and the picture. Both are
        empty of a model without such a memory.
    """
    found = readings(model, data.windows("test"))
    if not found:
        return {}, []
    patch = cast(Titans, model).patch
    lines = {"surprise": "surprise", "write rate": "write", "forget rate": "forget"}
    along = [_along(streams) for streams in found]
    path = folder / "memory.png"
    title = f"{recipe.source_name}  ·  {recipe.model}  ·  the memory along the stream"
    pictures.memory(
        {label: [block[name] for block in along] for label, name in lines.items()},
        patch,
        title=title,
        path=path,
    )
    return {"memory": [figures(streams, patch) for streams in found]}, [path]


@torch.no_grad()
def readings(model: nn.Module, windows: Windows) -> list[list[Readings]]:
    """Read what each memory of a model does with what it is given, all history included.

    Returns:
        Of each block, in order, the readings of some streams: of those tokens that are written.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Memory)]
    if not isinstance(model, StatefulModel) or not layers or not len(windows):
        return []
    pieces: dict[Memory, list[Readings]] = {}

    def note(layer: Memory, inputs: tuple[Any, ...], _: object) -> None:
        written = inputs[1].live[0]
        found = layer.readings(*inputs)
        pieces[layer].append(Readings(*(part[:, :, written] for part in found)))

    model.eval()
    kept: list[list[Readings]] = [[] for _ in layers]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        for stream in _streams(model, windows):
            pieces |= {layer: [] for layer in layers}
            model.run(stream, kept=0)
            for place, layer in enumerate(layers):
                whole = [torch.cat(part, 2) for part in zip(*pieces[layer], strict=True)]
                if whole and whole[0].shape[2]:
                    kept[place].append(Readings(*whole))
    finally:
        for hook in hooks:
            hook.remove()
    return kept if kept[0] else []


def figures(streams: Sequence[Readings], patch: int) -> dict[str, float]:
    """Sum up what a memory does.

    Args:
        streams: its readings.
        patch: rows of a token.

    Returns:
        `surprise`, the share of the values' squared length that was not recalled; the means of
        `write` and `forget`; `half_life`, rows after which forgetting alone leaves half; and
        `key_rank`, the exponential of the entropy of the keys' covariance spectrum, of at most
        `key_width`, the mean over heads.
    """
    found = Readings(*(torch.cat(part, 2)[0].double() for part in zip(*streams, strict=True)))
    forget = found.forget.mean().item()
    centred = found.keys - found.keys.mean(1, keepdim=True)  # (H, T, K)
    share = torch.linalg.eigvalsh(centred.transpose(1, 2) @ centred).clamp(min=0)
    share = share / share.sum(1, keepdim=True).clamp(min=1e-300)
    entropy = -torch.special.xlogy(share, share).sum(1)
    return {
        "surprise": (found.error.sum() / found.size.sum()).item(),
        "write": found.write.mean().item(),
        "forget": forget,
        "half_life": math.log(2) / max(forget, 1e-12) * patch,
        "key_rank": entropy.exp().mean().item(),
        "key_width": float(centred.shape[2]),
    }


def _streams(model: StatefulModel, windows: Windows) -> Iterator[SeriesBatch]:
    """Return some streams one by one, the first variates of the first series, with all history."""
    part = rolling_origin.history(model, windows)
    together = model.together
    count = 0
    for number in range(len(part)):
        batch = part.batch(torch.tensor([number], device=part.device))
        for first in range(0, batch.past.shape[2], together):
            if count == _MOST_STREAMS:
                return
            count += 1
            some = slice(first, first + together)
            mask = batch.past_mask
            yield SeriesBatch(
                past=batch.past[..., some],
                past_mask=None if mask is None else mask[..., some],
                past_time=batch.past_time,
            )


def _along(streams: Sequence[Readings]) -> dict[str, np.ndarray]:
    """Average over streams and heads, token by token, as far as the longest stream goes."""
    longest = max(found.write.shape[2] for found in streams)

    def mean(name: str) -> np.ndarray:
        lines = torch.full((len(streams), longest), torch.nan, dtype=torch.float64)
        for line, found in zip(lines, streams, strict=True):
            values = getattr(found, name)[0].double().mean(0)
            line[: len(values)] = values
        return lines.nanmean(0).numpy()

    surprise = mean("error") / np.maximum(mean("size"), 1e-300)
    return {"surprise": surprise, "write": mean("write"), "forget": mean("forget")}
