// Open descriptors of files, and the errors of their calls.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string_view>

#include "base/error.h"

namespace sluice {

// "cannot ACTION PATH: REASON": of kind user for what is missing, forbidden or of another kind, else of kind runtime.
Error system_failure(std::string_view action, const std::filesystem::path& path, int code);

class Descriptor {
 public:
  // Throws system_failure(action, path, ...).
  Descriptor(const std::filesystem::path& path, int flags, std::string_view action, mode_t mode = 0);
  // Owns `number` from here on.
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int number() const { return number_; }
  // Closes now and returns 0, or errno: a failure that shows only here.
  int close();

 private:
  int number_;
};

// All of it, in as many calls as that takes; `path` stands in the error.
void write_all(const Descriptor& file, std::string_view contents, const std::filesystem::path& path);
// Makes the names in the directory of `path` durable.
void sync_directory_of(const std::filesystem::path& path);

}  // namespace sluice
