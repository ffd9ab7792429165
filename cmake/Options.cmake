# Build-wide settings: warnings, sanitizers, linker, compiler cache.
set(SLUICE_SANITIZE "" CACHE STRING "Sanitizers to build with, e.g. address;undefined or thread")

set(debug_memory OFF)
if(CMAKE_BUILD_TYPE STREQUAL Debug OR SLUICE_SANITIZE)
  set(debug_memory ON)
endif()
option(SLUICE_FUZZ "Build the targets of libFuzzer (clang only)" OFF)
option(SLUICE_DEBUG_MEMORY "Poison released memory and check sentinels behind every block" ${debug_memory})

add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wno-missing-field-initializers;-Werror>")
# g++ 12 sees an overlap in every `"text" + std::string` (GCC bug 105651).
add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
# Results must not depend on how an expression happens to be contracted.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)

if(SLUICE_SANITIZE)
  list(JOIN SLUICE_SANITIZE "," sanitizers)
  add_compile_options(-fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  # Instrumented code misleads this one warning; the plain builds keep it.
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized>)
  add_link_options(-fsanitize=${sanitizers})
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()
