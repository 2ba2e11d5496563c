# CMake includes this file at each `project()` of llama.cpp.

# llama-cpp-2 always enables the default features of llama-cpp-sys-2, including `common`. No code calls `common`, but
# it takes half of llama.cpp's build time.
set(LLAMA_BUILD_COMMON OFF)
