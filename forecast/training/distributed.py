"""Data-parallel training by several processes: their ranks, and the sums over them.

`torchrun` starts them and says in the environment how many there are. Each takes its share of every
batch; sums of losses and gradients are over all shares, so that a step is the one that a single
process would make of the whole batch, up to the order of additions.

`Processes` each hold the whole model, and add up its gradients. In
`forecast.training.sharded` each holds a part of it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from forecast.errors import ForecastError, UsageError

Item = TypeVar("Item")
# Gradients travel in pieces of so many numbers: large enough to be worth a message, small enough
# not to hold all of them twice.
_PIECE = 4_000_000
# The others wait while process 0 scores; that one is dead is told by its connection.
_PATIENCE = timedelta(days=7)


class Team(Protocol):
    """The processes that train together (a process group)."""

    @property
    def rank(self) -> int:
        """Number of this process (its rank); 0 writes and reports for all."""
        ...

    @property
    def size(self) -> int:
        """Number of processes (the world size)."""
        ...

    @property
    def whole(self) -> bool:
        """Whether each process has all weights, and can write them by itself."""
        ...

    @property
    def factor(self) -> float:
        """Divisor of gradients in the reduction, which losses are multiplied by."""
        ...

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what is trained in place of a model."""
        ...

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring the parts of tensors together in process 0; others may get nothing."""
        ...

    def shard(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take this process's part of each tensor, as it has one of another of that name."""
        ...

    def guard(self) -> AbstractContextManager[None]:
        """Raise `PeerLost` in place of the error that the loss of a process causes."""
        ...

    def share(self, index: Tensor) -> tuple[Tensor, float]:
        """Return this process's part of a batch's windows, and the weight of its loss: 0 or 1."""
        ...

    def seed(self, *parts: int) -> None:
        """Set the random generator by the place in the training, differently in each process."""
        ...

    def total(self, sums: Tensor) -> Tensor:
        """Add up a small tensor over all processes."""
        ...

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients over all processes, in place."""
        ...

    def broadcast(self, value: Item | None) -> Item:
        """Return the value of process 0, in every process."""
        ...


class _Whole:
    """Every process has all weights: nothing to shard or gather."""

    whole, factor = True, 1.0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Train the model itself."""
        return model

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors, which are whole."""
        return dict(tensors)

    def shard(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors, which stay whole."""
        return dict(tensors)

    def guard(self) -> AbstractContextManager[None]:
        """Do nothing: whoever is lost is missed where sums are taken."""
        return nullcontext()


class Alone(_Whole):
    """The only process: nothing is shared and nothing is added."""

    rank, size = 0, 1

    def share(self, index: Tensor) -> tuple[Tensor, float]:
        """Take the whole batch."""
        return index, 1.0

    def seed(self, *parts: int) -> None:
        """Leave the random generator, whose state a checkpoint holds, as it is."""

    def total(self, sums: Tensor) -> Tensor:
        """Return what this process has."""
        return sums

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Leave the gradients as they are."""

    def broadcast(self, value: Item | None) -> Item:
        """Return the value."""
        return cast(Item, value)


class Processes(_Whole):
    """One of several processes, joined by gloo on CPUs and by NCCL on GPUs."""

    # What each of them can still write down when another is lost.
    saved = "step"

    def __init__(self, device: torch.device) -> None:
        if not distributed.is_initialized():
            self._guarded(
                lambda: distributed.init_process_group(
                    "nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE
                )
            )
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()
        self.device = device

    def share(self, index: Tensor) -> tuple[Tensor, float]:
        """Take every `size`-th window; where there is none left, the first, counting nothing."""
        own = index[self.rank :: self.size]
        return (own, 1.0) if len(own) else (index[:1], 0.0)

    def seed(self, *parts: int) -> None:
        """Set the generator by the place alone, so that a resumed training draws the same."""
        value = self.rank
        for part in parts:
            value = (value * 1_000_003 + part + 1) % (2**63 - 25)
        torch.manual_seed(value)

    def total(self, sums: Tensor) -> Tensor:
        """Add up a small tensor over all processes."""
        sums = sums.to(self.device, copy=True)
        self._add_up(sums)
        return sums

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients over all processes, in place, many in one message."""
        waiting: list[Tensor] = []
        for weight in parameters:
            if not weight.requires_grad:
                continue
            if weight.grad is None:
                # Another process may have one: all must send the same.
                weight.grad = torch.zeros_like(weight)
            waiting.append(weight.grad)
            if sum(gradient.numel() for gradient in waiting) >= _PIECE:
                self._add(waiting)
                waiting = []
        if waiting:
            self._add(waiting)

    def broadcast(self, value: Item | None) -> Item:
        """Return the value of process 0, in every process."""
        box: list[Any] = [value]
        self._guarded(lambda: distributed.broadcast_object_list(box, 0, device=self.device))
        return box[0]

    def _add(self, gradients: list[Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._add_up(flat)
        for gradient, part in zip(
            gradients, flat.split([one.numel() for one in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def _add_up(self, tensor: Tensor) -> None:
        def call() -> None:
            distributed.all_reduce(tensor)

        self._guarded(call)

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except (RuntimeError, OSError) as error:
            raise self.lost(error) from error

    def lost(self, error: Exception) -> PeerLost:
        """Return an error that says that a process is lost."""
        return PeerLost(
            "Another process of this job has ended, and the training with it: "
            f"{str(error).splitlines()[0]}",
            hint=f"The run is saved up to its last {self.saved}: start it again with --resume.",
        )


class PeerLost(ForecastError):  # noqa: N818 - it is no error of this process
    """Report that another process of the job has ended."""


@contextmanager
def joined(device: torch.device, *, shard: bool = False) -> Generator[Team]:
    """Join the processes that `torchrun` has started, if it has, and leave them at the end.

    Args:
        device: of this process.
        shard: let each process hold a part of the weights only.
    """
    if size() == 1:
        yield Alone()
        return
    try:
        if shard:
            # Half a second of import that others have no use for.
            yield cast(Team, importlib.import_module("forecast.training.sharded").Shards(device))
        else:
            yield Processes(device)
    finally:
        # Of one that is lost there is nobody left to say good-bye to.
        with suppress(RuntimeError):
            distributed.destroy_process_group()


def size() -> int:
    """Return the number of processes that `torchrun` has started (the world size)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process (its rank)."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def device_of(device: torch.device) -> torch.device:
    """Return the GPU of this process on its machine.

    Raises:
        UsageError: there are fewer GPUs than processes.
    """
    if size() == 1 or device.type != "cuda":
        return device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise UsageError(
            f"Process {local + 1} of this machine has no GPU: there are "
            f"{torch.cuda.device_count()}.",
            hint="Start as many processes as there are GPUs: torchrun --nproc-per-node",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
