// A consensus policy for tightwad: a component of the world `tightwad:plugin/consensus-policy-plugin`.
//
// The rule: if two drafters propose the same token and both are sure of it, accept it.

#include "consensus_policy.h"

const char plugin_name[] = "two-of-a-kind", plugin_version[] = "0.1.0";

// The probability from which on a drafter is sure of a token.
static const float min_probability = 0.5f;

// The number of tokens, from the first on, that both ballots propose and both drafters are sure of.
static size_t agreed(const ballot_t *one, const ballot_t *other) {
  size_t at = 0;
  for (; at < one->length && at < other->length; at++) {
    proposal_t a = one->proposals[at], b = other->proposals[at];
    if (a.token != b.token || a.probability < min_probability || b.probability < min_probability) break;
  }
  return at;
}

// The host calls it in every round. `drafter_count` includes drafters without a ballot.
ruling_t policy_rule(const ballot_t *ballots, size_t count, uint32_t drafter_count) {
  const ballot_t *best = NULL;
  size_t length = 0;
  for (const ballot_t *one = ballots; one < ballots + count; one++)
    for (const ballot_t *other = one + 1; other < ballots + count; other++)
      if (agreed(one, other) > length) best = one, length = agreed(one, other);

  // No agreement: the target verifies every ballot (an empty list means all).
  if (best == NULL) return (ruling_t){VERIFY, .verify = {NULL, 0}};

  // Commits the tokens without the target: this makes consensus fast.
  token_id_t *tokens = plugin_alloc(length * sizeof *tokens);
  for (size_t at = 0; at < length; at++) tokens[at] = best->proposals[at].token;
  return (ruling_t){ACCEPT, .accept = {tokens, length}};
}
