// A consensus policy for tightwad, as a component of the world `tightwad:plugin/voting`.
//
// The rule: where two drafters say the same, and both are sure of it, believe them.

#include "voting.h"

const char policy_name[] = "two-of-a-kind", policy_version[] = "0.1.0";

// The least probability that a drafter must have given a token.
static const float sure = 0.5f;

// How many tokens, from the start on, both ballots have and both drafters are sure of.
static size_t agreed(const ballot_t *one, const ballot_t *other) {
  size_t at = 0;
  for (; at < one->length && at < other->length; at++) {
    proposal_t a = one->proposals[at], b = other->proposals[at];
    if (a.token != b.token || a.probability < sure || b.probability < sure) break;
  }
  return at;
}

// Asked whenever drafters have proposed; `drafters` counts those without a ballot too.
ruling_t policy_rule(const ballot_t *ballots, size_t count, uint32_t drafters) {
  const ballot_t *best = NULL;
  size_t length = 0;
  for (const ballot_t *one = ballots; one < ballots + count; one++)
    for (const ballot_t *other = one + 1; other < ballots + count; other++)
      if (agreed(one, other) > length) best = one, length = agreed(one, other);

  // No agreement: the target looks at every ballot (no path stands for all).
  if (best == NULL) return (ruling_t){VERIFY, .verify = {NULL, 0}};

  // Committed without asking the target: this is what makes consensus fast.
  token_t *tokens = voting_alloc(length * sizeof *tokens);
  for (size_t at = 0; at < length; at++) tokens[at] = best->proposals[at].token;
  return (ruling_t){ACCEPT, .accept = {tokens, length}};
}
