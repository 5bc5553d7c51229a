"""One file with all that an interrupted training needs to go on as if nothing had happened.

A checkpoint is a safetensors file: tensors of the model, of the best model so far, of the optimizer
and the random generator, and the loop's own numbers as JSON in the header. It is written whole or
not at all, and reading it runs no code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from forecast import atomic
from forecast.errors import DataError, UsageError
from forecast.training.distributed import Team
from forecast.training.optimizer import Adam


@dataclass(kw_only=True, slots=True)
class Progress:
    """Progress of a training.

    Attributes:
        epoch: epochs finished.
        step: steps finished in the epoch under way.
        loss_sum: sum of squared errors over the epoch under way.
        loss_count: targets scored in the epoch under way.
        best_epoch: the epoch with the least validation loss, counted from 1; 0 before the first.
        best_loss: that loss.
        stale: epochs since then.
        history: one row for each finished epoch.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    best_epoch: int = 0
    best_loss: float | None = None
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Save and restore a training in one file.

    Attributes:
        path: the file.
        identity: what must be equal for a training to go on: recipe, data, threads.
    """

    path: Path
    identity: dict[str, str]

    def save(
        self,
        progress: Progress,
        model: nn.Module,
        optimizer: Adam,
        best: dict[str, Tensor],
        team: Team,
    ) -> None:
        """Write everything atomically, in process 0; what is in parts is brought together first."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer.state_dict().items()}
        tensors = team.gather(tensors)
        if team.rank:
            return
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        # Tied, sliced or transposed tensors are what the format refuses.
        tensors = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        header = {
            "progress": json.dumps(asdict(progress)),
            "identity": json.dumps(self.identity),
        }
        atomic.write_bytes(self.path, save(tensors, metadata=header))

    def restore(
        self, model: nn.Module, optimizer: Adam, team: Team
    ) -> tuple[Progress, dict[str, Tensor]] | None:
        """Restore model, optimizer and random generator, if there is a checkpoint.

        Returns:
            The progress and the best weights so far, or None without a checkpoint.

        Raises:
            UsageError: the checkpoint belongs to another recipe, other data or other threads.
            DataError: the file is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            identity, stored = json.loads(header["identity"]), json.loads(header["progress"])
        except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
            raise DataError(
                f"The checkpoint is damaged: {error}.",
                hint="Train again without --resume.",
                file=str(self.path),
            ) from error
        for name, value in self.identity.items():
            if identity.get(name) != value:
                raise UsageError(
                    f"The interrupted run had {name} {identity.get(name)}, this one has {value}; "
                    "going on would not give the weights of either.",
                    hint="Resume with what it was started with, or train again without --resume.",
                )
        own, moments = model.state_dict(), optimizer.state_dict()
        model.load_state_dict(team.shard(_under("model.", tensors), own))
        optimizer.load_state_dict(team.shard(_under("optimizer.", tensors), moments))
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        return Progress(**stored), team.shard(_under("best.", tensors), own)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
