// What lies between a policy and the host: the exports of the world `voting`, and memory.

#include "voting.h"

#define EXPORT(name) __attribute__((export_name(name)))
#define POLICY "tightwad:plugin/consensus-policy@0.1.0#"

typedef struct { const char *bytes; size_t length; } string_t;
typedef struct { string_t name, version; } info_t;

// All that one call needs, its arguments first. It holds no data, so the component is no bigger for it.
static _Alignas(8) unsigned char arena[1 << 20];
static size_t used;

static string_t string(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return (string_t){text, length};
}

void *voting_alloc(size_t bytes) {
  if (bytes > sizeof arena - used) __builtin_trap();
  void *start = &arena[used];
  used = (used + bytes + 7) & ~(size_t)7;
  if (used > sizeof arena) used = sizeof arena;
  return start;
}

// The host asks here for the memory of the arguments. It never makes a list longer.
EXPORT("cabi_realloc") void *voting_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)old, (void)old_size, (void)align;
  return voting_alloc(size);
}

EXPORT(POLICY "describe") info_t *voting_describe(void) {
  static info_t info;
  info = (info_t){string(policy_name), string(policy_version)};
  return &info;
}

EXPORT(POLICY "rule") ruling_t *voting_rule(const ballot_t *ballots, size_t count, uint32_t drafters) {
  static ruling_t ruling;
  ruling = policy_rule(ballots, count, drafters);
  return &ruling;
}

// The host has read the ruling.
EXPORT("cabi_post_" POLICY "rule") void voting_rule_is_read(ruling_t *ruling) {
  (void)ruling;
  used = 0;
}

__attribute__((import_module("tightwad:plugin/log@0.1.0"), import_name("write")))
void host_log(uint32_t level, const char *bytes, size_t length);

void voting_log(log_level_t level, const char *message) {
  string_t text = string(message);
  host_log(level, text.bytes, text.length);
}
