#include "emulation/streams.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

namespace sluice::emulation {

namespace {

struct Queue;
// The first `count` items of a queue; no queue: nothing.
struct Point {
  std::shared_ptr<Queue> queue;
  uint64_t count = 0;
};

struct Item {
  std::function<void()> work;  // or
  Point after;                 // nothing to do but that this has run
};

struct Queue {
  std::deque<Item> items;
  uint64_t put = 0;
  uint64_t run = 0;
};

// One at a time runs anything; streams are not here to be fast.
std::recursive_mutex& mutex() {
  static std::recursive_mutex the_mutex;
  return the_mutex;
}

std::set<StreamQueue*>& streams() {
  static std::set<StreamQueue*> all;
  return all;
}

void run_to(const Point& point) {
  if (!point.queue) return;
  Queue& queue = *point.queue;
  while (queue.run < point.count) {
    const Item item = std::move(queue.items.front());
    queue.items.pop_front();
    ++queue.run;
    run_to(item.after);
    if (item.work) item.work();
  }
}

}  // namespace

struct StreamQueue {
  std::shared_ptr<Queue> queue = std::make_shared<Queue>();
  Point end() const { return {queue, queue->put}; }
  void put(Item item) const {
    queue->items.push_back(std::move(item));
    ++queue->put;
  }
};

struct EventPoint {
  Point point;
};

StreamQueue* make_stream() {
  const std::scoped_lock lock(mutex());
  auto* stream = new StreamQueue;
  streams().insert(stream);
  return stream;
}

void drop_stream(StreamQueue* stream) {
  const std::scoped_lock lock(mutex());
  run_to(stream->end());
  streams().erase(stream);
  delete stream;
}

void put(StreamQueue* stream, std::function<void()> work) {
  const std::scoped_lock lock(mutex());
  if (stream == nullptr) {
    work();
  } else {
    stream->put({.work = std::move(work), .after = {}});
  }
}

void finish(StreamQueue* stream) {
  const std::scoped_lock lock(mutex());
  if (stream != nullptr) run_to(stream->end());
}

void finish_all_streams() {
  const std::scoped_lock lock(mutex());
  for (const StreamQueue* stream : streams()) run_to(stream->end());
}

EventPoint* make_event() {
  return new EventPoint;
}

void drop_event(EventPoint* event) {
  delete event;
}

void record(EventPoint* event, StreamQueue* stream) {
  const std::scoped_lock lock(mutex());
  event->point = stream != nullptr ? stream->end() : Point();
}

void wait(StreamQueue* stream, EventPoint* event) {
  const std::scoped_lock lock(mutex());
  if (stream == nullptr) {
    run_to(event->point);
  } else if (event->point.queue) {
    stream->put({.work = {}, .after = event->point});
  }
}

void finish(EventPoint* event) {
  const std::scoped_lock lock(mutex());
  run_to(event->point);
}

bool reached(EventPoint* event) {
  const std::scoped_lock lock(mutex());
  return !event->point.queue || event->point.queue->run >= event->point.count;
}

}  // namespace sluice::emulation
