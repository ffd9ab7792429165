# MPI where it is installed (Debian: libopenmpi-dev), else the program is built without it and says so. SLUICE_MPI=OFF
# leaves it out. The sanitizer builds do, since it is not instrumented, and programs for another machine, which may not
# have it.
if(SLUICE_SANITIZE OR SLUICE_CARRY)
  set(mpi_wanted OFF)
else()
  set(mpi_wanted ON)
endif()
option(SLUICE_MPI "Connect processes by MPI if it is installed" ${mpi_wanted})
if(NOT SLUICE_MPI)
  return()
endif()

# Every build looks whether it has been installed since. The C interface is enough: that of C++ without the old bindings.
file(GLOB installed CONFIGURE_DEPENDS /usr/lib/*/openmpi/include/mpi.h)
set(MPI_CXX_SKIP_MPICXX ON)
find_package(MPI QUIET COMPONENTS CXX)
if(MPI_CXX_FOUND)
  message(STATUS "processes: by sockets and by MPI, ${MPI_CXX_INCLUDE_DIRS}")
else()
  set(SLUICE_MPI OFF)
  message(STATUS "processes: by sockets; for MPI too install libopenmpi-dev and openmpi-bin, and configure again")
endif()
