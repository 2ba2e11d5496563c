// A consensus policy for tightwad: a component of the world `tightwad:plugin/consensus-policy-plugin`.
//
// The rule: if two drafters propose the same token and both are sure of it, accept it.

// The probability from which on a drafter is sure of a token.
const MIN_PROBABILITY = 0.5;

// The tokens, from the first on, that both ballots propose and both drafters are sure of.
function agreed(one, other) {
  const tokens = [];
  for (const [at, a] of one.proposals.entries()) {
    const b = other.proposals[at];
    if (a.token !== b?.token || Math.min(a.probability, b.probability) < MIN_PROBABILITY) break;
    tokens.push(a.token);
  }
  return tokens;
}

// Each export has the name of an interface that the world exports, in camel case.
export const plugin = {
  // The host calls it once, when it loads the component.
  describe: () => ({ name: "two-of-a-kind", version: "0.1.0" }),
};

export const consensusPolicy = {
  // The host calls it in every round. `drafterCount` includes drafters without a ballot.
  rule(ballots, drafterCount) {
    const pairs = ballots.flatMap((one, at) => ballots.slice(at + 1).map((other) => agreed(one, other)));
    // The first of the longest.
    const best = pairs.reduce((best, next) => (next.length > best.length ? next : best), []);
    return best.length > 0
      ? // Commits the tokens without the target: this makes consensus fast.
        { tag: "accept", val: best }
      : // No agreement: the target verifies every ballot (an empty list means all).
        { tag: "verify", val: [] };
  },
};
