# Programs to be run from a folder on another machine (preset `carry`; tools/pack_carry.sh makes the folder). They find
# Debian's libraries in lib/ beside bin/, and CUDA's in LD_LIBRARY_PATH or where SLUICE_WHEELS says.
option(SLUICE_CARRY "Make programs to be run on another machine" OFF)
set(SLUICE_WHEELS "" CACHE STRING "On that machine, the folder nvidia/ of Python's site-packages, if it is known")

# Where tests look for files of the repository.
set(SLUICE_SOURCES_AT ${PROJECT_SOURCE_DIR})
if(SLUICE_CARRY)
  set(SLUICE_SOURCES_AT .)
  set(CMAKE_INSTALL_RPATH "\$ORIGIN/../lib")
  if(SLUICE_WHEELS)
    foreach(wheel cu13 cudnn nccl)
      list(APPEND CMAKE_INSTALL_RPATH ${SLUICE_WHEELS}/${wheel}/lib)
    endforeach()
  endif()
  add_link_options(LINKER:--gc-sections)
endif()

# carry(TARGET [FOLDER]): `cmake --install` puts it into the folder.
function(carry target)
  if(NOT SLUICE_CARRY)
    return()
  endif()
  set(folder bin)
  if(ARGC GREATER 1)
    set(folder ${ARGV1})
  endif()
  install(TARGETS ${target} RUNTIME DESTINATION ${folder} LIBRARY DESTINATION ${folder})
endfunction()
