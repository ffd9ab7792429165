// Streams and events of the emulated runtime. What is put on a stream runs as late as it may: when somebody waits for
// it, on the thread that waits. So work that lacks an order it needs finds old or overwritten data, on any machine and
// every time. The null stream runs what it is given at once.
#pragma once

#include <functional>

namespace sluice::emulation {

struct StreamQueue;
struct EventPoint;

StreamQueue* make_stream();
// Runs what is left first.
void drop_stream(StreamQueue* stream);
// Runs `work` after everything put on the stream so far.
void put(StreamQueue* stream, std::function<void()> work);
// Returns when everything put on the stream so far has run; what that throws, it throws.
void finish(StreamQueue* stream);
void finish_all_streams();

EventPoint* make_event();
void drop_event(EventPoint* event);
void record(EventPoint* event, StreamQueue* stream);
// What comes next on the stream runs after what the event, as recorded now, stands for.
void wait(StreamQueue* stream, EventPoint* event);
void finish(EventPoint* event);
bool reached(EventPoint* event);

}  // namespace sluice::emulation
