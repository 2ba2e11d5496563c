# Read by CMake at each `project()` of llama.cpp.

# llama-cpp-2 asks for the default features of llama-cpp-sys-2 even when its own are off, and so for `common`, which
# takes half of the time of llama.cpp's build. Nothing calls it.
set(LLAMA_BUILD_COMMON OFF)
