// Exchange: the messages of one call of one rank with the others of its group.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/processes/process_world.h"

namespace sluice {

class Exchange {
 public:
  // `rank` is of the world. `same_call`: the others must be in `call` too.
  Exchange(ProcessWorld& world, uint64_t channel, int rank, CallName call, bool same_call);
  // Takes back what is under way, where the job has failed.
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  Exchange(Exchange&&) = delete;
  Exchange& operator=(Exchange&&) = delete;

  // Other messages of the same call.
  Exchange another() const { return {world_, channel_, rank_, call_, same_call_}; }

  // With another rank of the world. `data` has to be the same on both sides: "f32 x 12".
  void send(int to, int tag, const void* from, size_t bytes, const std::string& data);
  void receive(int from, int tag, void* to, size_t bytes, const std::string& data);
  bool done() const;
  // Returns when all of them are done, and forgets them; throws where the job fails.
  void wait();

  const CallName& call() const { return call_; }
  int rank() const { return rank_; }
  Job& job() const { return world_.job(); }

 private:
  MessagePtr make(int from, int to, int tag, void* data, size_t bytes, const std::string& what) const;

  ProcessWorld& world_;
  uint64_t channel_;
  int rank_;
  CallName call_;
  bool same_call_;
  std::shared_ptr<Bell> bell_ = std::make_shared<Bell>();
  std::vector<MessagePtr> messages_;
};

}  // namespace sluice
