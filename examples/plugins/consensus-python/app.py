"""A consensus policy for tightwad, as a component of the world `tightwad:plugin/voting`.

The rule: where two drafters say the same, and both are sure of it, believe them.
"""

# These modules do not exist on disk: componentize-py makes them from the WIT files.
from wit_world import exports
from wit_world.exports.consensus_policy import Info
from wit_world.imports.ballots import Ballot, Ruling, Ruling_Accept, Ruling_Verify

# The least probability that a drafter must have given a token.
SURE = 0.5


def agreed(one: Ballot, other: Ballot) -> list[int]:
    """The tokens from the start on that both ballots have and both drafters are sure of."""
    tokens = []
    for a, b in zip(one.proposals, other.proposals):
        if a.token != b.token or min(a.probability, b.probability) < SURE:
            break
        tokens.append(a.token)
    return tokens


# The name of the class is the name of the interface that the world exports.
class ConsensusPolicy(exports.ConsensusPolicy):
    def describe(self) -> Info:
        """Asked once, when the host loads the component."""
        return Info(name="two-of-a-kind", version="0.1.0")

    def rule(self, ballots: list[Ballot], drafters: int) -> Ruling:
        """Asked whenever drafters have proposed; `drafters` counts those without a ballot too."""
        pairs = ((one, other) for at, one in enumerate(ballots) for other in ballots[at + 1 :])
        # Of several longest ones the first.
        best = max((agreed(*pair) for pair in pairs), key=len, default=[])
        if best:
            # Committed without asking the target: this is what makes consensus fast.
            return Ruling_Accept(best)
        # No agreement: the target looks at every ballot (an empty list stands for all).
        return Ruling_Verify([])
