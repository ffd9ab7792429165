#include "trainer/pretrained.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "config/load.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// A directory with a golden's config.json, gone at the end.
class Directory {
 public:
  Directory() {
    fs::create_directories(path_);
    fs::copy_file(SLUICE_SOURCE_DIR "/tests/parity/goldens/llama/config.json", path_ / "config.json");
  }
  ~Directory() { fs::remove_all(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  std::string path() const { return path_.string(); }
  void add(const std::string& name) const { std::ofstream(path_ / name) << "weights"; }

 private:
  fs::path path_ = fs::temp_directory_path() / ("sluice-pretrained-" + std::to_string(::getpid()) +
                                                testing::UnitTest::GetInstance()->current_test_info()->name());
};

std::unique_ptr<Pretrained> find(const std::string& directory, const std::string& load_weights, bool by_default) {
  const Config config =
      config::parse("model: {" + load_weights + "config: {pretrained_model_name_or_path: " + directory +
                        "}}\ndataset: {_target_: mock, seq_len: 8}\n",
                    "run.yaml");
  return find_pretrained(config, resolve(config, 1), by_default);
}

TEST(Pretrained, WeightsThatCannotBeReadAreNotTakenForNone) {
  const Directory directory;
  for (const char* const name : {"pytorch_model.bin", "consolidated.00.pth", "pytorch_model.safetensors",
                                 "model-00001-of-00002.safetensors", "model.gguf", "tf_model.h5"}) {
    directory.add(name);
    for (const char* const load : {"", "load_weights: true, "}) {
      try {
        find(directory.path(), load, true);
        ADD_FAILURE() << name;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::user);
        const std::string text = describe(error);
        EXPECT_NE(text.find(directory.path() + " has weights that are not read, " + name), std::string::npos) << text;
        EXPECT_NE(text.find("--model.load_weights false"), std::string::npos) << text;
      }
    }
    EXPECT_EQ(find(directory.path(), "load_weights: false, ", true), nullptr);
    EXPECT_EQ(find(directory.path(), "", false), nullptr);
    fs::remove(fs::path(directory.path()) / name);
  }
}

TEST(Pretrained, ADirectoryWithoutWeightsIsOneOfRandomOnesWhichIsSaid) {
  const Directory directory;
  directory.add("tokenizer.model");
  testing::internal::CaptureStderr();
  EXPECT_EQ(find(directory.path(), "", true), nullptr);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("holds no weights: they are drawn at random"),
            std::string::npos);
  testing::internal::CaptureStderr();
  EXPECT_EQ(find(directory.path(), "", false), nullptr);
  EXPECT_EQ(find("Qwen/Qwen3-30B-A3B", "", true), nullptr);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_THROW(find(directory.path(), "load_weights: true, ", true), Error);
}

TEST(Pretrained, TheWeightsOfADirectoryAreFound) {
  const Directory directory;
  directory.add("pytorch_model.bin");
  fs::copy_file(SLUICE_SOURCE_DIR "/tests/parity/goldens/llama/weights.safetensors",
                fs::path(directory.path()) / "model.safetensors");
  EXPECT_NE(find(directory.path(), "", true), nullptr);
}

}  // namespace
}  // namespace sluice
