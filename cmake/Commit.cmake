# The commit beside every result: a header written anew at each build, touched only when the commit has changed.
# Included by the build it declares the target; run as a script it writes the header.
if(CMAKE_SCRIPT_MODE_FILE)
  cmake_minimum_required(VERSION 3.25)
  execute_process(COMMAND git describe --always --dirty --abbrev=12 --exclude=* WORKING_DIRECTORY ${SOURCE}
                  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed OR NOT commit)
    set(commit unknown)
  endif()
  file(CONFIGURE OUTPUT ${HEADER} @ONLY CONTENT
"// Written by the build.
#pragma once
namespace sluice::generated {
constexpr const char* version() { return \"@VERSION@\"; }
constexpr const char* commit() { return \"@commit@\"; }
}
")
  return()
endif()

set(commit_header ${PROJECT_BINARY_DIR}/generated/sluice_commit.h)
set(write_commit ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DHEADER=${commit_header}
    -DVERSION=${PROJECT_VERSION} -P ${CMAKE_CURRENT_LIST_FILE})
add_custom_target(sluice_commit COMMAND ${write_commit} BYPRODUCTS ${commit_header} VERBATIM)
