// The pages of docs/ against the sources, and each rule against a page that says something else.
#include "house/pages.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>

#include "base/file.h"

namespace sluice::house {
namespace {

const std::filesystem::path root = SLUICE_SOURCE_DIR;

std::string text_of(const std::string& path) {
  return read_file(root / path, 1 << 22);
}

TEST(HousePages, AddingAnOperationNamesTheFilesThatChange) {
  std::vector<SourceFile> files = scan_folder(root, "src");
  for (const char* folder : {"tests", "benchmarks"}) {
    std::vector<SourceFile> more = scan_folder(root, folder);
    std::move(more.begin(), more.end(), std::back_inserter(files));
  }
  files.push_back(scan("docs/gpu_status.md", text_of("docs/gpu_status.md")));
  EXPECT_EQ(listing(operation_guide(text_of("docs/architecture.md"), files)), "");
}

TEST(HousePages, HostReadsAreListed) {
  EXPECT_EQ(listing(host_reads(text_of("docs/host_reads.md"), scan_folder(root, "src"))), "");
}

// --- each rule can fail ---

TEST(HousePageRules, OperationGuide) {
  const std::vector<SourceFile> files{scan("src/ops/small.h", "struct SmallOp {};"),
                                      scan("src/device/ref/small.cpp", "f(SmallOp{});"),
                                      scan("src/nn/user.cpp", "ctx.run(SmallOp{});"),
                                      scan("src/ops/other.h", "// SmallOp"), scan("docs/status.md", "| `small_op` |")};
  const auto check = [&](const std::string& section) {
    return listing(operation_guide("# Page\n\n## Adding an operation\n\n" + section + "\n## More\n`src/x.h`\n", files));
  };
  const std::string steps =
      "1. **`src/ops/small.h`** and `f()`\n2. **`src/device/ref/small.cpp`**, "
      "**`docs/status.md`**: by a tool\n";
  EXPECT_EQ(check("`SmallOp` is small: 3 files.\n\n" + steps), "");
  EXPECT_EQ(check("`SmallOp` is small: 5 files.\n\n" + steps),
            "Adding an operation: the steps name 3 files, the text does not say so\n");
  EXPECT_EQ(check("`SmallOp`: 2 files.\n1. **`src/ops/small.h`**, **`src/ops/other.h`**\n"),
            "Adding an operation: docs/status.md mentions SmallOp and is no step\n"
            "Adding an operation: src/device/ref/small.cpp mentions SmallOp and is no step\n"
            "Adding an operation: src/ops/other.h does not mention SmallOp\n");
  EXPECT_EQ(operation_guide("# Page\n", files).size(), 1U);
}

TEST(HousePageRules, HostReads) {
  const std::vector<SourceFile> files{
      scan("src/nn/a.cpp",
           "void A::plan() {\n  for (;;) {\n    ctx.read<int>(t, [] {});\n  }\n}\nvoid f() { reader.read(x); }"),
      scan("src/train/b.cpp", "class Meter { void after() { this->backend().read(t, x); backend_->read(t, x); } };"),
      scan("src/device/context.h", "void g() { backend_.read(t, x); }"),
      scan("src/device/cuda/c.cu", "void h() { device_.to_host(x); other.to_host(x); }"),
      scan("src/device/cuda/cuda_backend.cpp", "void k() { device_.to_host(x); }")};
  const auto check = [&](const std::string& page) { return listing(host_reads(page, files)); };
  const std::string cu = "\nAnd `device/cuda/c.cu`.\n", head = "| place | why |\n|---|---|\n";
  const std::string a = "| `nn/a.cpp`, `plan` | `x` |\n", b = "| `train/b.cpp`, `Meter` | y |\n";
  EXPECT_EQ(check(head + a + b + cu), "");
  EXPECT_EQ(check(head + a + b), "src/device/cuda/c.cu:1: reads from the device and is not named\n");
  EXPECT_EQ(check(head + b + cu), "src/nn/a.cpp:3: reads from the device and has no row\n");
  EXPECT_EQ(check(head + a + cu),
            "src/train/b.cpp:1: reads from the device and has no row\n"
            "src/train/b.cpp:1: reads from the device and has no row\n");
  EXPECT_EQ(check(head + a + b + "| `nn/a.cpp`, `f` | z |\n" + cu), "src/nn/a.cpp: f does not read there\n");
  EXPECT_EQ(check(head + "| `nn/a.cpp` | z |\n").substr(0, 13), "| `nn/a.cpp` ");
}

}  // namespace
}  // namespace sluice::house
