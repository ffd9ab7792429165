#include "launch/hosts.h"

#include <unistd.h>

#include <array>
#include <climits>
#include <utility>

#include "base/text.h"
#include "launch/first_host.h"
#include "launch/further_host.h"

namespace sluice::launch {
namespace {

// There is no other.
class OnlyHost final : public Hosts {
 public:
  explicit OnlyHost(const LocalPlan& plan) : plan_(plan) {}

  void watch(std::vector<pollfd>& /*all*/) const override {}
  void read() override {}
  std::optional<Start> start() override {
    if (plan_.master) return Start{.master = *plan_.master};
    const std::string here = "127.0.0.1";
    Listener listener(0, here);
    const int port = listener.port();
    return Start{.master = {.host = here, .port = port}, .listener = std::move(listener)};
  }
  void tell(const Failure& /*failure*/) override {}
  const Failure* elsewhere() const override { return nullptr; }
  void tell_over(const Outcome& outcome) override { outcome_ = outcome; }
  std::optional<Decision> decision() override {
    return Decision{.again = start_again(plan_, restarts_++, outcome_), .code = outcome_.code};
  }

 private:
  const LocalPlan& plan_;
  Outcome outcome_;
  int restarts_ = 0;
};

}  // namespace

std::unique_ptr<Hosts> make_hosts(const LocalPlan& plan, const LaunchTimes& times, Say say) {
  if (plan.nodes == 1) return std::make_unique<OnlyHost>(plan);
  if (plan.node == 0) return std::make_unique<FirstHost>(plan, times, std::move(say));
  return std::make_unique<FurtherHost>(plan, times, std::move(say));
}

bool start_again(const LocalPlan& plan, int restarts, const Hosts::Outcome& all) {
  constexpr int kUsersMistake = 2;
  return all.failed && !all.signalled && all.code != kUsersMistake && restarts < plan.restarts;
}

std::string host_named(int host, const std::string& name) {
  return fmt::format("host {} ({})", host, printable_line(name));
}

std::string machine_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

}  // namespace sluice::launch
