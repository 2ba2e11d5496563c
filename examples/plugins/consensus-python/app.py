"""A consensus policy for tightwad: a component of the world `tightwad:plugin/consensus-policy-plugin`.

The rule: if two drafters propose the same token and both are sure of it, accept it.
"""

# These modules do not exist on disk: componentize-py makes them from the WIT files.
from wit_world import exports
from wit_world.exports.plugin import Info
from wit_world.imports.ballots import Ballot, Ruling, Ruling_Accept, Ruling_Verify

# The probability from which on a drafter is sure of a token.
MIN_PROBABILITY = 0.5


def agreed(one: Ballot, other: Ballot) -> list[int]:
    """The tokens, from the first on, that both ballots propose and both drafters are sure of."""
    tokens = []
    for a, b in zip(one.proposals, other.proposals):
        if a.token != b.token or min(a.probability, b.probability) < MIN_PROBABILITY:
            break
        tokens.append(a.token)
    return tokens


# Each class has the name of an interface that the world exports.
class Plugin(exports.Plugin):
    def describe(self) -> Info:
        """The host calls it once, when it loads the component."""
        return Info(name="two-of-a-kind", version="0.1.0")


class ConsensusPolicy(exports.ConsensusPolicy):
    def rule(self, ballots: list[Ballot], drafter_count: int) -> Ruling:
        """The host calls it in every round. `drafter_count` includes drafters without a ballot."""
        pairs = ((one, other) for at, one in enumerate(ballots) for other in ballots[at + 1 :])
        # The first of the longest.
        best = max((agreed(*pair) for pair in pairs), key=len, default=[])
        if best:
            # Commits the tokens without the target: this makes consensus fast.
            return Ruling_Accept(best)
        # No agreement: the target verifies every ballot (an empty list means all).
        return Ruling_Verify([])
