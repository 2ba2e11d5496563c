// Functions of llama.cpp's staging header, which has no C linkage, for `heads.rs`.

#include "llama-ext.h"

extern "C" void tightwad_keep_hidden_states(llama_context * context, bool only_outputs) {
    llama_set_embeddings_nextn(context, true, only_outputs);
}

extern "C" const float * tightwad_hidden_state(llama_context * context, int32_t row) {
    return llama_get_embeddings_nextn_ith(context, row);
}
