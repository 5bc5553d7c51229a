"""Fully sharded data-parallel training (FSDP2): each process holds a part of the model.

Weights are brought together where they are needed and let go again; gradients are added up on their
way to the process that holds their part, so that the moments of Adam stay in parts too. A step is
that of a single process all the same, up to the order of additions.

A model that says `same_path = True` has its repeated blocks brought together one at a time. In any
other, what a batch holds may decide which blocks it goes through; processes that exchanged them
singly would wait for each other for ever, so they bring all weights together once in a step.

Source: Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB 2023,
arXiv 2304.11277; torch's `fully_shard`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from forecast.training.distributed import Processes

Loss = Callable[[Any], tuple[Tensor, Tensor]]


class Shards(Processes):
    """One of several processes that each hold a shard of the weights, gradients and moments."""

    whole = False
    saved = "checkpoint"

    @property
    def factor(self) -> float:
        """Number of processes, since FSDP2 averages gradients."""
        return float(self.size)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return a copy whose weights are sharded; the model itself stays in the CPU's memory."""
        mesh = init_device_mesh(self.device.type, (self.size,))
        parts = copy.deepcopy(model.to("cpu"))
        singly = getattr(parts, "same_path", False)
        if singly:
            # Those inside others first.
            for owner in reversed([*parts.modules()]):
                if isinstance(owner, nn.ModuleList):
                    for block in owner:
                        fully_shard(block, mesh=mesh, reshard_after_forward=True)
        else:
            loss = cast(Loss, parts.loss)
            parts.loss = cast(Any, partial(_touching_all, parts, loss))
        fully_shard(parts, mesh=mesh, reshard_after_forward=singly)
        for name in ("loss", "validation"):
            if hasattr(parts, name):
                register_fsdp_forward_method(parts, name)
        return parts.to(self.device)

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring the parts of tensors together, one by one, in the CPU's memory of process 0."""
        found: dict[str, Tensor] = {}
        with self.guard():
            for name, one in tensors.items():
                whole = one.full_tensor() if isinstance(one, DTensor) else one
                if not self.rank:
                    found[name] = whole.cpu()
        return found

    def shard(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take this process's part of each tensor that another of its name is in parts of."""
        return {name: self._part(one, like.get(name)) for name, one in tensors.items()}

    @contextmanager
    def guard(self) -> Generator[None]:
        """Turn the error of a lost process into `PeerLost`: weights are exchanged during a step."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
                raise self.lost(error) from error
            raise

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Do nothing: gradients were added up on their way."""

    def _part(self, tensor: Tensor, like: Tensor | None) -> Tensor:
        if not isinstance(like, DTensor):
            return tensor
        # Each process has read the whole, so that none need send it.
        return distribute_tensor(
            tensor.to(self.device), like.device_mesh, like.placements, src_data_rank=None
        )


def _touching_all(model: nn.Module, loss: Loss, batch: Any) -> tuple[Tensor, Tensor]:
    """Compute a loss in which every weight has a gradient, if of 0: all must exchange the same."""
    total, count = loss(batch)
    nothing = sum(weight.sum() for weight in model.parameters() if weight.requires_grad) * 0.0
    return total + nothing, count
