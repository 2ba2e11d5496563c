// A consensus policy for tightwad, as a component of the world `tightwad:plugin/voting`.
//
// The rule: where two drafters say the same, and both are sure of it, believe them.

// The least probability that a drafter must have given a token.
const SURE = 0.5;

// The tokens from the start on that both ballots have and both drafters are sure of.
function agreed(one, other) {
  const tokens = [];
  for (const [at, a] of one.proposals.entries()) {
    const b = other.proposals[at];
    if (a.token !== b?.token || Math.min(a.probability, b.probability) < SURE) break;
    tokens.push(a.token);
  }
  return tokens;
}

// The name of the export is the name of the interface that the world exports, in camel case.
export const consensusPolicy = {
  // Asked once, when the host loads the component.
  describe: () => ({ name: "two-of-a-kind", version: "0.1.0" }),

  // Asked whenever drafters have proposed; `drafters` counts those without a ballot too.
  rule(ballots, drafters) {
    const pairs = ballots.flatMap((one, at) => ballots.slice(at + 1).map((other) => agreed(one, other)));
    // Of several longest ones the first.
    const best = pairs.reduce((best, next) => (next.length > best.length ? next : best), []);
    return best.length > 0
      ? // Committed without asking the target: this is what makes consensus fast.
        { tag: "accept", val: best }
      : // No agreement: the target looks at every ballot (an empty list stands for all).
        { tag: "verify", val: [] };
  },
};
