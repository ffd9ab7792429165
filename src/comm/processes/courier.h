// Courier: carries messages between the ranks of a job whose processes are connected by a wire, and what its processes
// have to tell each other. A process has one, with a thread that alone uses the wire.
//   A send finds its receive, or the other way round, by address, in the order of calls. Small messages travel with
// their announcement. Of larger ones the receiver first says that it is ready, then they go from memory to memory. Two
// ranks of one process copy.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "comm/job.h"
#include "comm/processes/members.h"
#include "comm/processes/message.h"
#include "comm/processes/wire.h"

namespace sluice {

class Courier final : public Job::Elsewhere, private Wire::Events {
 public:
  // `members`: of processes 0, 1, ... in this order. `timeout_s`: how long texts of other processes are waited for.
  Courier(std::unique_ptr<Wire> wire, std::vector<Member> members, double timeout_s);
  // Says goodbye, and waits a moment for the others to do so.
  ~Courier() override;
  Courier(const Courier&) = delete;
  Courier& operator=(const Courier&) = delete;
  Courier(Courier&&) = delete;
  Courier& operator=(Courier&&) = delete;

  const std::vector<Member>& members() const { return members_; }
  const Member& self() const { return members_[static_cast<size_t>(process_)]; }
  int world() const { return static_cast<int>(process_of_.size()); }
  const std::string& host_of(int rank) const { return members_[static_cast<size_t>(process_of(rank))].host; }
  bool here(int rank) const { return process_of_[static_cast<size_t>(rank)] == process_; }

  // What every process has said in its call of this function, in the order of processes. All call it, as often as each
  // other. Runtime error where a process ends meanwhile, or says nothing within the time.
  std::vector<std::string> exchange(const std::string& text);

  // The job that hears of failures from here on; null: none. One at a time, in the same order in all processes. Returns
  // its number.
  int serve(Job* job);

  // Whether another process has failed, or was lost, first.
  bool failed_elsewhere() const;
  // Whether no process before this one can be reached: it is the first, or all before it are gone.
  bool first_alive() const;

  // The memory belongs to the courier until the message is done. Where both sides do not agree the job fails.
  void send(const MessagePtr& message);
  void receive(const MessagePtr& message);
  // Takes a message back where the job has failed, or fails by this. Returns when its memory is not used any more.
  void withdraw(Message& message);

  bool has_left(int rank) const override;
  Job::Account account(const std::vector<int>& ranks) override;
  void tell_failure(int rank, const Error& cause) override;
  void tell_left(int rank) override;

 private:
  struct Arrival;  // a message that nobody has asked for yet
  struct Peer {    // another process
    std::deque<std::string> texts;
    bool goodbye = false;
    bool lost = false;
  };
  using BulkKey = std::pair<int, uint32_t>;  // the other process, the id

  void packet(int from, std::span<const std::byte> bytes) override;
  void sent(int to, uint32_t id) override;
  void received(int from, uint32_t id) override;
  void lost(int process, const std::string& why) override;

  void got(int from, const packets::Small& small);
  void got(int from, const packets::Offer& offer);
  void got(int from, const packets::Accept& accept);
  void got(int from, const packets::Failure& failure);
  void got(int from, const packets::Left& left);
  void got(int from, const packets::Question& question);
  void got(int from, const packets::Answer& answer);
  void got(int from, const packets::Text& text);
  void got(int from, const packets::Goodbye& goodbye);

  void loop();
  bool waited_for() const;
  void post(int process, const packets::Packet& packet);
  void post_to_all(const packets::Packet& packet);
  MessagePtr take_posted(const Address& address);
  // Whether both sides agree; else the job fails, and the message is done.
  bool agree(const Contents& sender, Message& receiver);
  void copy(Message& from, Message& to);
  void accept(int process, uint32_t offer, const MessagePtr& message);
  void moved(std::map<BulkKey, MessagePtr>& list, const BulkKey& key);
  void fail(int rank, const Error& cause);
  std::string whereabouts() const;
  int process_of(int rank) const { return process_of_[static_cast<size_t>(rank)]; }

  std::unique_ptr<Wire> wire_;
  const std::vector<Member> members_;
  const int process_;
  const double timeout_s_;
  std::vector<int> process_of_;  // each rank's

  mutable std::mutex mutex_;  // of what follows; a job's may be held when it is taken, never the other way round
  std::map<Address, std::deque<MessagePtr>> posted_;
  std::map<Address, std::deque<Arrival>> arrivals_;
  std::map<uint32_t, MessagePtr> offers_;   // sends whose receiver is not ready
  std::map<BulkKey, MessagePtr> outgoing_;  // under way on the wire
  std::map<BulkKey, MessagePtr> incoming_;
  std::vector<std::function<void()>> outbox_;  // what the courier's thread is to do with the wire
  uint32_t next_offer_ = 0;
  uint32_t next_bulk_ = 0;
  uint32_t next_question_ = 0;
  int job_number_ = 0;
  std::set<std::pair<int, int>> left_;                      // number of the job, rank
  std::map<uint32_t, std::optional<std::string>> answers_;  // by question; none: not yet
  std::vector<Peer> peers_;
  std::optional<std::pair<int, Error>> failure_;  // of another process, before there was a job to hear it
  bool failed_here_ = false;                      // before another process did
  bool abandoned_ = false;                        // no bulk any more
  bool stop_ = false;

  mutable std::mutex job_mutex_;  // the job stays while this is held
  Job* job_ = nullptr;
  Bell bell_;  // rings when a text, an answer, a goodbye or a failure has come, or bulk was abandoned
  std::thread thread_;
};

}  // namespace sluice
