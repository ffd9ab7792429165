#include "comm/sockets/bulk_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace sluice {

namespace {

// The most that one call of the system moves: what else has come in the meantime waits no longer than this takes.
constexpr size_t kMostBytes = size_t{1} << 20;

}  // namespace

void BulkLink::send(uint32_t id, std::span<const std::byte> bytes) {
  require(!bytes.empty(), "bulk {} of no bytes", id);
  if (stream_.deaf()) return;
  outgoing_.push_back({.header = {.id = id, .zero = 0, .bytes = bytes.size()}, .bytes = bytes});
}

void BulkLink::expect(uint32_t id, std::span<std::byte> bytes) {
  require(!bytes.empty(), "bulk {} of no bytes", id);
  if (stream_.ended()) return;
  const bool fresh = expected_.emplace(id, bytes).second && (rest_.empty() || incoming_ != id);
  require(fresh, "bulk {} is under way already", id);
}

void BulkLink::write() {
  std::array<iovec, 16> parts;
  size_t count = 0;
  size_t total = 0;
  const auto add = [&](const void* data, size_t bytes) {
    bytes = std::min(bytes, kMostBytes - total);
    if (bytes == 0) return;
    parts[count++] = {.iov_base = const_cast<void*>(data), .iov_len = bytes};
    total += bytes;
  };
  for (const Outgoing& out : outgoing_) {
    if (count + 2 > parts.size() || total == kMostBytes) break;
    const size_t of_header = std::min(out.written, kHeader);
    const size_t of_bytes = out.written - of_header;
    add(reinterpret_cast<const std::byte*>(&out.header) + of_header, kHeader - of_header);
    add(out.bytes.data() + of_bytes, out.bytes.size() - of_bytes);
  }
  size_t written = stream_.write({parts.data(), count});
  while (written > 0) {
    Outgoing& out = outgoing_.front();
    const size_t moved = std::min(written, kHeader + out.bytes.size() - out.written);
    out.written += moved;
    written -= moved;
    if (out.written < kHeader + out.bytes.size()) break;
    sent_.push_back(out.header.id);
    outgoing_.pop_front();
  }
  if (stream_.deaf()) outgoing_.clear();
}

std::optional<uint32_t> BulkLink::next_sent() {
  if (sent_.empty()) return std::nullopt;
  const uint32_t id = sent_.front();
  sent_.pop_front();
  return id;
}

// The header of the next bulk is read along with the end of one.
std::optional<uint32_t> BulkLink::read() {
  const bool under_way = !rest_.empty();
  const size_t most = std::min(rest_.size(), kMostBytes);
  std::array<iovec, 2> parts{
      iovec{.iov_base = rest_.data(), .iov_len = most},
      iovec{.iov_base = header_.data() + header_bytes_, .iov_len = most == rest_.size() ? kHeader - header_bytes_ : 0}};
  const size_t moved = stream_.read(under_way ? std::span(parts) : std::span(parts).subspan(1));
  const size_t of_bytes = std::min(moved, most);
  rest_ = rest_.subspan(of_bytes);
  header_bytes_ += moved - of_bytes;
  const uint32_t complete = incoming_;
  const bool done = under_way && rest_.empty();
  if (header_bytes_ == kHeader) begin_incoming();
  return done ? std::optional(complete) : std::nullopt;
}

void BulkLink::begin_incoming() {
  Header header{};
  std::memcpy(&header, header_.data(), kHeader);
  header_bytes_ = 0;
  const auto at = expected_.find(header.id);
  if (at == expected_.end()) {
    stream_.refuse(fmt::format("it sent bulk {} of {} bytes, which nothing here waits for", header.id, header.bytes));
  } else if (header.zero != 0 || at->second.size() != header.bytes) {
    stream_.refuse(
        fmt::format("it sent bulk {} with {} bytes instead of {}", header.id, header.bytes, at->second.size()));
  } else {
    incoming_ = header.id;
    rest_ = at->second;
    expected_.erase(at);
  }
}

void BulkLink::abandon() {
  outgoing_.clear();
  sent_.clear();
  expected_.clear();
  rest_ = {};
}

}  // namespace sluice
