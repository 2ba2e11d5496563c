// The world `tightwad:plugin/consensus-policy-plugin` for C. `wit/ballots.wit` and `wit/consensus-policy.wit` document it.
// The types have the layout of the component model's canonical ABI, so nothing is copied.
//
// There is no C library and no `free`: memory from `plugin_alloc` lives until the host has read the ruling.

#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint32_t token_id_t;

// One proposed token, and the drafter's own probability for it (0 to 1).
typedef struct { token_id_t token; float probability; } proposal_t;

// The continuation that one drafter proposes.
typedef struct {
  uint32_t drafter;             // The drafter's place in the script's list.
  float weight;                 // Its weight by recent agreement with the target, 0 to 1.
  const proposal_t *proposals;  // The proposed tokens, in order.
  size_t length;                // At least 1.
} ballot_t;

// A list of tokens.
typedef struct { const token_id_t *items; size_t length; } tokens_t;

// The decision about ballots.
typedef struct {
  enum { ACCEPT, VERIFY, DECODE } kind;
  union {
    tokens_t accept;                                        // Commits these tokens without the target.
    struct { const tokens_t *paths; size_t count; } verify; // The target verifies these paths; none: every ballot.
    uint32_t decode;                                        // The target decodes up to this many tokens.
  };
} ruling_t;

// A policy defines its name, its version and its rule.
extern const char plugin_name[], plugin_version[];
ruling_t policy_rule(const ballot_t *ballots, size_t count, uint32_t drafter_count);

// A policy may call these functions. `plugin_alloc` never fails: it stops the plugin if memory runs out.
void *plugin_alloc(size_t bytes);
typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level_t;
void plugin_log(log_level_t level, const char *message);
