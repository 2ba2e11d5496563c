// The world `tightwad:plugin/voting` for C. `wit/ballots.wit` and `wit/consensus-policy.wit` say what
// everything means; the layout of the types is that of the component model, so that nothing is copied.
//
// There is no C library here, and no need to free: what `voting_alloc` gives lives until the host has
// read the ruling.

#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint32_t token_t;

// One proposed token with the drafter's own probability for it (0 to 1).
typedef struct { token_t token; float probability; } proposal_t;

// What one drafter says comes next.
typedef struct {
  uint32_t drafter;             // Its place in the script's list of drafters.
  float weight;                 // How much its word has lately been worth: 0 to 1.
  const proposal_t *proposals;  // One token after the other.
  size_t length;                // At least 1.
} ballot_t;

// Tokens, one after the other.
typedef struct { const token_t *items; size_t length; } tokens_t;

// What becomes of ballots.
typedef struct {
  enum { ACCEPT, VERIFY, DECODE } kind;
  union {
    tokens_t accept;                                        // Committed, and the target is not asked.
    struct { const tokens_t *paths; size_t count; } verify; // What the target looks at; none: every ballot.
    uint32_t decode;                                        // So many tokens from the target alone.
  };
} ruling_t;

// Who the component is, and its rule: what a policy must define.
extern const char policy_name[], policy_version[];
ruling_t policy_rule(const ballot_t *ballots, size_t count, uint32_t drafters);

// What a policy may call. `voting_alloc` never fails: it stops the plugin where memory runs out.
void *voting_alloc(size_t bytes);
typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level_t;
void voting_log(log_level_t level, const char *message);
