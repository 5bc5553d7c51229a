"""Todyformer: messages inside patches of time, attention along each node's patches, in turn.

A window of recent events is cut into patches; a message-passing network turns a node in a patch
into a token; a transformer over the tokens of one node mixes time; and again. A node's last token
answers queries through one of three heads: scores of links, values of nodes, shares of
destinations.

Source: Biparva et al., "Todyformer: Towards Holistic Dynamic Graph Transformers with
Structure-Aware Tokenization", arXiv 2402.05944. No code was published, and the paper leaves open
what follows; chosen here are: patches of equally many events, never cut inside one time; messages
both ways, with the direction learned; equal events of a patch as one edge with its count; pre-norm
attention over all patches of a node, both ways, for all are past; positions by the mean age of a
patch; the last token as read-out; a softmax over sampled destinations as loss, each weighed by how
many it stands for.

New here: a link's score also sees when pair and nodes last met (`pair_features`; without them the
model is the paper's), and its network, which starts at zero, adds to learned weights of those
facts, which start as the rule that `EventSpec.rule` names: untrained, the model ranks as that rule
does. Shares add to the logarithm of a moving average, values to a linear map of the last ones.

A node that the window lacks, or that nobody knows, has a learned token of its own.

Letters: B queries, K candidates, W events of a window, M patches, T tokens, D width, A heads,
H horizon, N nodes, U nodes of the window, P facts of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from forecast.batch import EventBatch, EventSpec, Forecast, Scores
from forecast.errors import UsageError
from forecast.models.todyformer.blocks import DirectMap, Global, Local, TimeCode
from forecast.models.todyformer.link_rules import Evidence
from forecast.models.todyformer.tokens import Tokens, tokenise
from forecast.scoring import ranking

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class TodyformerConfig:
    """Config of Todyformer.

    Attributes:
        width: D, numbers that stand for a token.
        depth: blocks, each of messages and attention.
        heads: A; they divide `width`.
        patches: M.
        time_width: cosines that stand for a time.
        dropout: probability of zeroing an element of what a layer adds.
        coalesce: let equal events of a patch be one edge with a count.
        weights: let messages see the weights of events.
        pair_features: let a link's score see the history of the pair.
        alike: weight, beside the softmax over a query's candidates, of telling true links from
            random ones whatever the query, so that scores of different queries compare: on
            CollegeMsg it lifts AP, on Enron it costs ranks.
        base: what forecasts of node values start from without a map fitted to training.
    """

    width: Positive = 64
    depth: Positive = 2
    heads: Positive = 4
    patches: Positive = 8
    time_width: Positive = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    coalesce: bool = True
    weights: bool = False
    pair_features: bool = True
    alike: Annotated[float, Field(ge=0)] = 0.0
    base: Literal["last", "mean"] = "last"


class Todyformer(nn.Module):
    """Answer queries about a graph of events.

    Args:
        config: its size.
        spec: the shape of the task.
        node_features: what is known of each node at all times.
        start: for values of nodes, the linear map of a window and 1 that forecasts start from;
            None starts from the last value, or the mean.

    Raises:
        UsageError: the heads do not divide the width.
    """

    node_features: Tensor | None

    def __init__(
        self,
        config: TodyformerConfig,
        spec: EventSpec,
        node_features: Float[Tensor, "N G"] | None = None,
        start: Float[Tensor, "L1 H"] | None = None,
    ) -> None:
        super().__init__()
        if config.width % config.heads:
            raise UsageError(
                f"{config.heads} heads do not divide a width of {config.width}.",
                hint="Choose model.width as a multiple of model.heads.",
            )
        self.config, self.spec = config, spec
        width = config.width
        known = 0 if node_features is None else node_features.shape[1]
        if node_features is not None:
            # A node that is new since has the mean of the others.
            node_features = torch.cat([node_features, node_features.mean(0, keepdim=True)])
        self.register_buffer("node_features", node_features)
        self.embed = nn.Linear(4 + known, width)
        self.embed_norm = nn.LayerNorm(width)
        self.time_code = TimeCode(config.time_width)
        self.position = nn.Linear(config.time_width, width)
        edge_width = config.time_width + 1 + spec.event_features + config.weights
        self.local_blocks = nn.ModuleList(
            Local(width, config.heads, edge_width) for _ in range(config.depth)
        )
        self.global_blocks = nn.ModuleList(
            Global(width, config.heads, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.absent = nn.Parameter(torch.zeros(width))
        if spec.task == "node":
            self.values = nn.Linear(width, spec.horizon)
            nn.init.zeros_(self.values.weight)
            nn.init.zeros_(self.values.bias)
            self.direct = DirectMap(spec.lookback, spec.horizon, start, mean=config.base == "mean")
            return
        self.facts = facts = spec.facts if config.pair_features and spec.task == "link" else 0
        self.score = nn.Sequential(
            nn.Linear(3 * width + facts, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 1),
        )
        self.rule = Evidence(facts, spec.rule) if facts and spec.rule else None
        last = self.score[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.bias)
        with torch.no_grad():
            last.weight.mul_(0.1 if self.rule is None else 0.0)

    def forward(
        self, batch: EventBatch, encoded: tuple[Float[Tensor, "U1 D"], Tokens] | None = None
    ) -> Scores | Forecast:
        """Score the candidates of each query, or forecast the values of each queried node.

        Args:
            batch: the window and what is asked.
            encoded: what `encode` gave for the same window, so that it is read once.
        """
        nodes, tokens = encoded or self.encode(batch)
        if self.spec.task == "node":
            return self._values(batch, nodes, tokens)
        candidates = batch.candidates
        assert candidates is not None
        source = nodes.index_select(0, _places(tokens, batch.query))[:, None]  # (B, 1, D)
        places = _places(tokens, candidates)
        target = nodes.index_select(0, places.flatten()).view(*candidates.shape, -1)
        parts = [source.expand_as(target), target, source * target]
        if self.facts:
            assert batch.facts is not None
            parts.append(batch.facts)
        scores = self.score(torch.cat(parts, -1)).squeeze(-1)
        if self.rule is not None and batch.facts is not None:
            scores = scores + self.rule(batch.facts)
        if batch.prior is not None:
            scores = scores + batch.prior
        if batch.candidate_mask is not None:
            scores = scores.masked_fill(~batch.candidate_mask, -torch.inf)
        return Scores(values=scores)

    def loss(self, batch: EventBatch) -> tuple[Tensor, Tensor]:
        """Sum the loss over queries, or over values, and count them."""
        truth, answer = batch.truth, self(batch)
        assert truth is not None
        if isinstance(answer, Forecast):
            error = (answer.values[0].T - truth).abs()
            return error.sum(), error.new_tensor(error.numel(), dtype=torch.float64)
        chances = answer.values.log_softmax(1)
        if truth.is_floating_point():
            # A share of 0 has nothing to do with a candidate that is masked.
            total = -(truth * torch.where(truth > 0, chances, 0.0)).sum()
        else:
            total = -chances.gather(1, truth[:, None]).sum()
            if self.config.alike:
                total = total + self.config.alike * self._alike(answer.values, batch)
        return total, total.new_tensor(len(truth), dtype=torch.float64)

    def _alike(self, scores: Float[Tensor, "B K"], batch: EventBatch) -> Tensor:
        """Sum the loss of telling true links from the last candidates, with one level for all.

        A softmax over the candidates of a query leaves open how scores of two queries compare.
        """
        assert batch.truth is not None
        if batch.prior is not None:
            scores = scores - batch.prior
        true, other = scores.gather(1, batch.truth[:, None])[:, 0], scores[:, -1]
        return (functional.softplus(-true) + functional.softplus(other)).sum()

    def validation(self, batch: EventBatch) -> tuple[Tensor, Tensor]:
        """Sum what training is stopped by, and count it: what ranks lack to be the best ones.

        Of links that is 1 less the reciprocal rank, of shares 1 less the NDCG@10; of values the
        loss itself.
        """
        truth = batch.truth
        assert truth is not None
        if self.spec.task == "node":
            return self.loss(batch)
        scores = self(batch).values
        count = scores.new_tensor(len(truth), dtype=torch.float64)
        if truth.is_floating_point():
            return count * (1 - ranking.ndcg(scores, truth)), count
        return (1 - 1 / ranking.link_ranks(scores, batch)).sum(), count

    def encode(self, batch: EventBatch) -> tuple[Float[Tensor, "U1 D"], Tokens]:
        """Read the window: a row for each of its nodes, and behind them one for all others."""
        config = self.config
        if config.weights and batch.weight is None:
            raise UsageError(
                "model.weights is on, and the events have no weights.",
                hint="Leave model.weights out, or bring a column 'weight'.",
            )
        tokens = tokenise(
            batch,
            # Snapshots are patches themselves, as many as the window has steps.
            patch_count=self.spec.lookback if self.spec.task == "node" else config.patches,
            time_unit=self.spec.time_unit,
            coalesce=config.coalesce,
        )
        counts = [tokens.incoming.log1p(), tokens.outgoing.log1p()]
        known = [*counts, tokens.since.log1p() / 10, 1 / (1 + tokens.since)]
        x = torch.stack(known, 1)
        if self.node_features is not None:
            row = tokens.node.clamp(max=len(self.node_features) - 1)
            x = torch.cat([x, self.node_features.index_select(0, row)], 1)
        x = self.embed_norm(self.embed(x))
        edges = torch.cat(
            [self.time_code(tokens.edge_since), tokens.edge_count.log1p()[:, None]], 1
        )
        if tokens.edge_numbers.shape[1]:
            numbers = tokens.edge_numbers
            # Weights are the first of an edge's numbers.
            first = 0 if config.weights or batch.weight is None else 1
            edges = torch.cat([edges, numbers[:, first:]], 1)
        position = self.position(self.time_code(tokens.age))
        for local, across in zip(self.local_blocks, self.global_blocks, strict=True):
            x = across(tokens, local(tokens, x, edges), position)
        nodes = self.norm(x.index_select(0, tokens.last))
        return torch.cat([nodes, self.absent[None]]), tokens

    def _values(self, batch: EventBatch, nodes: Tensor, tokens: Tokens) -> Forecast:
        history = batch.history
        assert history is not None
        seen = nodes.index_select(0, _places(tokens, batch.query))
        return Forecast(values=(self.direct(history) + self.values(seen)).T[None])  # (1, H, N)


def _places(tokens: Tokens, nodes: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Find the rows of nodes; one that the window lacks has the row behind all others."""
    count = len(tokens.nodes)
    if not count:
        return torch.zeros_like(nodes)
    place = torch.searchsorted(tokens.nodes, nodes.contiguous()).clamp(max=count - 1)
    return torch.where(tokens.nodes[place] == nodes, place, count)
