// A file that is cut short while it is mapped ends the program by a message, in whichever thread it is noticed.
#include "cli/lost_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <thread>

#include "base/file.h"
#include "checkpoint/hub_export.h"
#include "e2e/program.h"
#include "model/cards.h"

namespace sluice::test {
namespace {

constexpr size_t kBytes = 1 << 20;

void read_after_cutting(const std::string& path, size_t left) {
  cli::explain_lost_files();
  const MappedFile file(path);
  std::filesystem::resize_file(path, left);
  std::jthread([&] {
    const volatile std::byte sum = std::accumulate(file.bytes().begin(), file.bytes().end(), std::byte{},
                                                   [](std::byte a, std::byte b) { return a ^ b; });
    (void)sum;
  }).join();
  std::_Exit(0);
}

TEST(LostFile, IsNamedAndEndsTheProgram) {
  const Folder folder;
  const std::string path = folder.file("a name with spaces", std::string(kBytes, 'x'));
  EXPECT_EXIT(read_after_cutting(path, kBytes / 2), testing::ExitedWithCode(1),
              "error: " + path + ": bytes that were there when it was opened cannot be read");
}

// Copied as it is, the weights of a source go from its mapping into a file: what fails is the reading, not the write.
void convert_after_cutting(const std::string& source, const std::string& target) {
  cli::explain_lost_files();
  const HubWeights hub(source);
  const HubMatch match = match_weights(hub, load_model(source));
  std::filesystem::resize_file(source + "/model.safetensors", 1 << 13);
  std::filesystem::create_directories(target);
  convert_weights(hub, match, target, std::nullopt, {});
  std::_Exit(0);
}

TEST(LostFile, TheSourceOfACopyIsNamed) {
  const Folder folder;
  const std::string source = hub_directory(folder, "llama");
  EXPECT_EXIT(convert_after_cutting(source, folder.path("out")), testing::ExitedWithCode(1),
              "error: " + source + "/model.safetensors: bytes that were there when it was opened cannot be read");
}

TEST(LostFile, AWholeOneIsRead) {
  const Folder folder;
  EXPECT_EXIT(read_after_cutting(folder.file("whole", std::string(kBytes, 'x')), kBytes), testing::ExitedWithCode(0),
              "^$");
}

TEST(LostFile, NoFileWhereNoneIsMapped) {
  const auto memory = std::make_unique<int>();
  EXPECT_EQ(cli::file_mapped_at(nullptr), "");
  const std::string heap = cli::file_mapped_at(memory.get());
  EXPECT_TRUE(heap.empty() || heap.starts_with('[')) << heap;
}

}  // namespace
}  // namespace sluice::test
