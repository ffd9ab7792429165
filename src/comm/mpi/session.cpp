#include <mpi.h>
#include <sched.h>

#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string_view>

#include "base/error.h"
#include "comm/job.h"
#include "comm/mpi/calls.h"
#include "comm/mpi/mpi.h"
#include "comm/mpi/mpi_wire.h"

namespace sluice::mpi {
namespace {

// How long others are waited for where something has failed.
constexpr std::chrono::milliseconds kMoment{2000};
// Any number of them.
constexpr std::chrono::milliseconds kForever = std::chrono::hours(24 * 365);

int allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

// Run by exit(), after everything was printed.
void end_all_unless_over(int status, void* /*unused*/) {
  int over = 0;
  MPI_Finalized(&over);
  if (over != 0) return;
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, status == 0 ? 1 : status);
}

std::string_view name_of_level(int level) {
  switch (level) {
    case MPI_THREAD_SINGLE:
      return "MPI_THREAD_SINGLE";
    case MPI_THREAD_FUNNELED:
      return "MPI_THREAD_FUNNELED";
    case MPI_THREAD_SERIALIZED:
      return "MPI_THREAD_SERIALIZED";
    default:
      return "MPI_THREAD_MULTIPLE";
  }
}

// Each process's text, in the order of processes.
std::vector<std::string> gather(MPI_Comm all, int processes, const std::string& mine) {
  const auto count = static_cast<size_t>(processes);
  const auto length = static_cast<int>(mine.size());
  std::vector<int> lengths(count), begins(count);
  check(MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, all), "MPI_Allgather");
  std::exclusive_scan(lengths.begin(), lengths.end(), begins.begin(), 0);
  std::string texts(static_cast<size_t>(begins.back() + lengths.back()), '\0');
  check(MPI_Allgatherv(mine.data(), length, MPI_CHAR, texts.data(), lengths.data(), begins.data(), MPI_CHAR, all),
        "MPI_Allgatherv");
  std::vector<std::string> list;
  for (size_t i = 0; i < count; ++i) {
    list.push_back(texts.substr(static_cast<size_t>(begins[i]), static_cast<size_t>(lengths[i])));
  }
  return list;
}

class MpiSession final : public Session {
 public:
  MpiSession() {
    const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level_);
    if (code != MPI_SUCCESS) throw runtime_failure("MPI_Init_thread failed: {}", text_of(code));
    on_exit(end_all_unless_over, nullptr);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &process_);
    MPI_Comm_size(MPI_COMM_WORLD, &processes_);
  }
  ~MpiSession() override {
    if (given_up_) return;
    MPI_Request barrier = MPI_REQUEST_NULL;
    if (MPI_Ibarrier(MPI_COMM_WORLD, &barrier) != MPI_SUCCESS) return;
    const auto all_here = [&] {
      int over = 0;
      return MPI_Test(&barrier, &over, MPI_STATUS_IGNORE) == MPI_SUCCESS && over != 0;
    };
    if (comes(all_here, unwinding_() ? kMoment : kForever)) MPI_Finalize();
  }
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  MpiSession(MpiSession&&) = delete;
  MpiSession& operator=(MpiSession&&) = delete;

  int process() const override { return process_; }
  int processes() const override { return processes_; }

  // What this MPI has to offer.
  void expect(const Launched& launched) const {
    if (level_ < MPI_THREAD_SERIALIZED) {
      throw user_error("{} allows {}, and calls come from several threads, one at a time", version(),
                       name_of_level(level_))
          .advise("it takes an MPI with MPI_THREAD_SERIALIZED, as Debian's libopenmpi3");
    }
    if (launched.processes > 0 && launched.processes != processes_) {
      throw user_error("the launcher has started {} processes, and {} sees {}", launched.processes, version(),
                       processes_)
          .advise("start them with the mpirun of this MPI, or under Slurm with srun --mpi=pmix");
    }
    if (launched.process >= 0 && launched.process != process_) {
      throw user_error("the launcher calls this process {}, and {} calls it {}", launched.process, version(), process_)
          .advise(
              "what sets the number of a process (flags, RANK, OMPI_COMM_WORLD_RANK, SLURM_PROCID) has to say the "
              "same as MPI");
    }
    int* most = nullptr;
    int known = 0;
    constexpr int kMostId = (1 << 30) - 1;
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, static_cast<void*>(&most), &known);
    if (known == 0 || *most < kMostId) {
      throw user_error("{} has tags up to {}, and they have to go up to {}", version(), known == 0 ? 0 : *most, kMostId)
          .advise("Open MPI has a layer of messages that allows it: set OMPI_MCA_pml=ob1");
    }
  }

  std::unique_ptr<Wire> connect(const Member& self, int world, std::vector<Member>& members) override {
    require(self.process == process_, "process {} introduces itself as {}", process_, self.process);
    require(!given_up_, "another wire after one that could not be ended");
    const std::vector<std::string> lines = gather(MPI_COMM_WORLD, processes_, to_line(self));
    std::vector<Member> list(lines.size());
    for (size_t i = 0; i < lines.size(); ++i) {
      if (from_line(lines[i], list[i])) continue;
      throw user_error("process {} introduces itself in words that this one does not know: {}", i, lines[i])
          .advise("start the same version on all hosts");
    }
    check_members(list, world);
    members = std::move(list);
    return std::make_unique<MpiWire>(MPI_COMM_WORLD, given_up_);
  }

 private:
  int level_ = MPI_THREAD_SINGLE;
  int process_ = 0;
  int processes_ = 0;
  bool given_up_ = false;  // MPI must not be called any more
  UnwindingSince unwinding_;
};

}  // namespace

bool available() {
  return true;
}

std::string version() {
  std::string text(MPI_MAX_LIBRARY_VERSION_STRING, '\0');
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  text.resize(static_cast<size_t>(length));
  // "Open MPI v4.1.4, package: ..."
  return text.substr(0, text.find_first_of(",\n"));
}

std::unique_ptr<Session> start(const Launched& launched) {
  int begun = 0;
  MPI_Initialized(&begun);
  require(begun == 0, "MPI is started a second time in a process");
  const auto is_set = [](const char* name) { return std::getenv(name) != nullptr; };
  // Open MPI would end the process, in words of its own.
  if (launched.processes > 1 && is_set("SLURM_PROCID") && !is_set("PMIX_RANK") && !is_set("PMI_RANK") &&
      !is_set("OMPI_COMM_WORLD_RANK")) {
    throw user_error("srun has started this process without PMIx, so MPI cannot find the others")
        .advise("srun --mpi=pmix (srun --mpi=list shows what this Slurm has)");
  }
  // While it waits, MPI asks the network again and again: it must not keep a core from those it waits for.
  if (launched.local_processes * launched.threads > allowed_cores()) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  // In which Open MPI reads another process's memory where it can: slower than its other way by half, and for ours by
  // half again, where it was measured (docs/performance.md). Who has set it has chosen.
  setenv(kSingleCopy, "none", 0);
  auto session = std::make_unique<MpiSession>();
  session->expect(launched);
  return session;
}

}  // namespace sluice::mpi
