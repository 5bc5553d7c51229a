"""What is known of a pair as evidence whose weighted sum can be a rule that ranks links.

Rules such as "whom one met last, then who was met last" are lexicographic: pairs that never met are
in an order of their own behind all others. Two products of facts make them linear: the time since
any event into a destination counts for pairs that never met, and for no others.

Letters: B queries, K candidates, P facts of a pair, as `EventHistory.facts` gives them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Places among the facts: logarithms of times since an event, over 10, and whether there was none.
_THERE, _INTO, _LATER = 0, 6, 12
_LOGARITHMS = (0, 3, 6, 9, 12)
_NEVER_THERE, _NEVER_MET = 1, 13
_PRODUCTS = 2
# The weights have to move by whole numbers, those of a network by hundredths.
_PACE = 10.0

# The weights of evidence that make each rule: of facts by their place, of the products by name.
# Steep weights rank alike but are far from chances, so that learning begins by undoing them; these
# are near those that learning the weights alone finds where random destinations are the negatives.
STARTS: dict[str, dict[int | str, float]] = {
    "undirected-recency-then-destination": {_LATER: -0.3, "never met": -0.15},
    "recency-then-destination": {_THERE: -0.3, "never there": -0.15},
    "destination-recency": {_INTO: -0.15},
}


class Evidence(nn.Module):
    """Weigh what is known of a pair; the weights are learned from those of a rule.

    Args:
        facts: P.
        rule: a name in `STARTS`.
    """

    def __init__(self, facts: int, rule: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(facts + _PRODUCTS))
        names = {"never met": facts, "never there": facts + 1}
        with torch.no_grad():
            for place, weight in STARTS[rule].items():
                self.weight[names[place] if isinstance(place, str) else place] = weight / _PACE

    def forward(self, facts: Float[Tensor, "B K P"]) -> Float[Tensor, "B K"]:
        """Score each pair."""
        scale = torch.full_like(self.weight, _PACE)
        scale[list(_LOGARITHMS)] *= 10.0
        scale[-_PRODUCTS:] *= 10.0
        never = facts[..., [_NEVER_MET, _NEVER_THERE]]
        products = facts[..., _INTO, None] * never
        return torch.cat([facts, products], -1) @ (scale * self.weight)
