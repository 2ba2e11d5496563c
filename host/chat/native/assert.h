// Included before each file of `common`: failed assertions throw. llama.cpp would end the process.

#pragma once

#include "ggml.h"

[[noreturn]] void tightwad_assertion_failed(const char * file, int line, const char * text);

#undef GGML_ABORT
#define GGML_ABORT(...) tightwad_assertion_failed(__FILE__, __LINE__, "abort")
#undef GGML_ASSERT
#define GGML_ASSERT(condition) \
    do { \
        if (!(condition)) { \
            tightwad_assertion_failed(__FILE__, __LINE__, #condition); \
        } \
    } while (false)
