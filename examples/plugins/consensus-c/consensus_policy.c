// Connects a policy to the host: the exports of the world `consensus-policy-plugin`, and memory.

#include "consensus_policy.h"

#define EXPORT(name) __attribute__((export_name(name)))
#define PLUGIN "tightwad:plugin/plugin@0.1.0#"
#define POLICY "tightwad:plugin/consensus-policy@0.1.0#"

typedef struct { const char *bytes; size_t length; } string_t;
typedef struct { string_t name, version; } info_t;

// The memory of one call, its arguments first. It has no initial data, so it adds nothing to the component's size.
static _Alignas(8) unsigned char arena[1 << 20];
static size_t used;

static string_t string(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return (string_t){text, length};
}

void *plugin_alloc(size_t bytes) {
  if (bytes > sizeof arena - used) __builtin_trap();
  void *start = &arena[used];
  used = (used + bytes + 7) & ~(size_t)7;
  if (used > sizeof arena) used = sizeof arena;
  return start;
}

// The host allocates the arguments with it. The host never grows an allocation.
EXPORT("cabi_realloc") void *plugin_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)old, (void)old_size, (void)align;
  return plugin_alloc(size);
}

EXPORT(PLUGIN "describe") info_t *plugin_describe(void) {
  static info_t info;
  info = (info_t){string(plugin_name), string(plugin_version)};
  return &info;
}

EXPORT(POLICY "rule") ruling_t *consensus_policy_rule(const ballot_t *ballots, size_t count, uint32_t drafter_count) {
  static ruling_t ruling;
  ruling = policy_rule(ballots, count, drafter_count);
  return &ruling;
}

// The host calls it after it has read the ruling.
EXPORT("cabi_post_" POLICY "rule") void consensus_policy_rule_done(ruling_t *ruling) {
  (void)ruling;
  used = 0;
}

__attribute__((import_module("tightwad:plugin/log@0.1.0"), import_name("write")))
void host_log(uint32_t level, const char *bytes, size_t length);

void plugin_log(log_level_t level, const char *message) {
  string_t text = string(message);
  host_log(level, text.bytes, text.length);
}
