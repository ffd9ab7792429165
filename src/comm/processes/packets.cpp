#include "comm/processes/packets.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "comm/processes/wire.h"

namespace sluice::packets {
namespace {

// Kind, address, three lengths and more: less than this.
constexpr size_t kHeader = 128;
constexpr size_t kMostText = Wire::kMostPacketBytes - kHeader;

class Writer {
 public:
  template <class T>
  void number(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    append(std::as_bytes(std::span(&value, 1)));
  }
  void text(std::string_view value) {
    number(static_cast<uint32_t>(value.size()));
    append(std::as_bytes(std::span(value)));
  }
  void append(std::span<const std::byte> bytes) {
    bytes_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
  T number() {
    T value;
    const std::span<const std::byte> bytes = take(sizeof value);
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  std::string text() {
    const auto bytes = take(number<uint32_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::span<const std::byte> rest() { return take(rest_.size()); }
  bool at_end() const { return rest_.empty(); }

 private:
  std::span<const std::byte> take(size_t count) {
    require(count <= rest_.size(), "a packet between processes ends {} bytes early", count - rest_.size());
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }

  std::span<const std::byte> rest_;
};

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

void put(Writer& to, const Address& address) {
  to.number(address.channel);
  to.number(address.from);
  to.number(address.to);
  to.number(address.tag);
}

void put(Writer& to, const Contents& contents) {
  to.text(contents.call);
  to.text(contents.data);
  to.number(contents.bytes);
}

Address get_address(Reader& from) {
  Address address;
  address.channel = from.number<uint64_t>();
  address.from = from.number<int32_t>();
  address.to = from.number<int32_t>();
  address.tag = from.number<int32_t>();
  return address;
}

Contents get_contents(Reader& from) {
  Contents contents;
  contents.call = from.text();
  contents.data = from.text();
  contents.bytes = from.number<uint64_t>();
  return contents;
}

std::string_view cut(std::string_view text) {
  return text.substr(0, kMostText);
}

Packet get_kind(size_t kind, Reader& from) {
  Packet packet;
  switch (kind) {
    case 0: {
      Small small{.address = get_address(from), .contents = get_contents(from), .data = {}};
      small.data = from.rest();
      packet = std::move(small);
      break;
    }
    case 1: {
      Offer offer{.address = get_address(from), .contents = get_contents(from)};
      offer.offer = from.number<uint32_t>();
      packet = std::move(offer);
      break;
    }
    case 2: {
      Accept accept{.offer = from.number<uint32_t>()};
      accept.bulk = from.number<uint32_t>();
      packet = accept;
      break;
    }
    case 3: {
      Failure failure{.rank = from.number<int32_t>()};
      failure.kind = static_cast<ErrorKind>(from.number<uint8_t>());
      failure.message = from.text();
      packet = std::move(failure);
      break;
    }
    case 4: {
      Left left{.job = from.number<int32_t>()};
      left.rank = from.number<int32_t>();
      packet = left;
      break;
    }
    case 5:
      packet = Question{from.number<uint32_t>()};
      break;
    case 6: {
      Answer answer{.number = from.number<uint32_t>(), .text = {}};
      answer.text = from.text();
      packet = std::move(answer);
      break;
    }
    case 7:
      packet = Text{from.text()};
      break;
    case 8:
      packet = Goodbye{};
      break;
    default:
      require(false, "a packet between processes is of kind {}", kind);
  }
  require(from.at_end(), "a packet between processes, of kind {}, is too long", kind);
  return packet;
}

}  // namespace

std::string encode(const Packet& packet) {
  Writer to;
  to.number(static_cast<uint8_t>(packet.index()));
  std::visit(Overloaded{
                 [&](const Small& small) {
                   put(to, small.address);
                   put(to, small.contents);
                   to.append(small.data);
                 },
                 [&](const Offer& offer) {
                   put(to, offer.address);
                   put(to, offer.contents);
                   to.number(offer.offer);
                 },
                 [&](const Accept& accept) {
                   to.number(accept.offer);
                   to.number(accept.bulk);
                 },
                 [&](const Failure& failure) {
                   to.number(failure.rank);
                   to.number(static_cast<uint8_t>(failure.kind));
                   to.text(cut(failure.message));
                 },
                 [&](const Left& left) {
                   to.number(left.job);
                   to.number(left.rank);
                 },
                 [&](const Question& question) { to.number(question.number); },
                 [&](const Answer& answer) {
                   to.number(answer.number);
                   to.text(cut(answer.text));
                 },
                 [&](const Text& text) {
                   require(text.text.size() <= kMostText, "a text of {} bytes for another process", text.text.size());
                   to.text(text.text);
                 },
                 [](const Goodbye&) {},
             },
             packet);
  return to.take();
}

Packet decode(std::span<const std::byte> bytes) {
  Reader from(bytes);
  const auto kind = from.number<uint8_t>();
  return get_kind(kind, from);
}

size_t most_small_bytes(const Contents& contents) {
  const size_t taken = kHeader + contents.call.size() + contents.data.size();
  return Wire::kMostPacketBytes - std::min(Wire::kMostPacketBytes, taken);
}

}  // namespace sluice::packets
