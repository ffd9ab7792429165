# Everything comes from Debian packages; ./run installs them.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(GTest REQUIRED)
find_library(XXHASH_LIBRARY xxhash REQUIRED)
find_library(HWY_LIBRARY hwy REQUIRED)

# Single-threaded BLAS: the pool runs many calls at once, each on its own tile.
set(openblas_hint lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-serial)
find_library(OPENBLAS_LIBRARY NAMES openblas HINTS /usr/${openblas_hint} PATH_SUFFIXES openblas-serial REQUIRED)
find_path(OPENBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas-serial ${CMAKE_LIBRARY_ARCHITECTURE}/openblas-serial REQUIRED)
add_library(sluice_blas INTERFACE)
target_include_directories(sluice_blas SYSTEM INTERFACE ${OPENBLAS_INCLUDE_DIR})
target_link_libraries(sluice_blas INTERFACE ${OPENBLAS_LIBRARY})
