# Compiler flags of every target. Two of them are part of the arithmetic contract
# (docs/architecture.md §4): no contraction of a*b+c, and no fast-math. tests/tidy checks both.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")

find_program(EM_CCACHE ccache)
if(EM_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${EM_CCACHE}")
endif()

add_library(em_compile_options INTERFACE)
add_library(em::compile_options ALIAS em_compile_options)
target_compile_options(em_compile_options INTERFACE -Wall -Wextra -Werror -ffp-contract=off)

set(EXPERTMESH_SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined or thread")
if(EXPERTMESH_SANITIZE)
  add_compile_options(-fsanitize=${EXPERTMESH_SANITIZE} -fno-omit-frame-pointer -g1
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${EXPERTMESH_SANITIZE})
  # g++ 12 reports these inside Boost when a sanitizer is on.
  target_compile_options(em_compile_options INTERFACE -Wno-maybe-uninitialized -Wno-array-bounds)
endif()
