#include "checkpoint/export_trained.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/rank_parts.h"
#include "checkpoint/rank_writer.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFolder = ".values";  // in the directory, until the weights are complete

HashedFile write_values(const Context& ctx, const TrainedState& state, const fs::path& file) {
  std::vector<StateSlice> values = kept_slices(state);
  std::erase_if(values, [](const StateSlice& slice) { return slice.kind != StateKind::value; });
  std::vector<std::byte> staging(RankFile(values).block_bytes());
  RankWriter writer(values, file, {.staging = staging, .copy = [&](const Tensor& from, std::byte* to) {
                                     copy_to_host(ctx, from, to);
                                   }});
  writer.release();
  return writer.finish();
}

}  // namespace

void save_values(Context& ctx, Communicator& world, const TrainedState& state, const fs::path& directory) {
  leave_part(directory, write_values(ctx, state, directory / rank_file_name(world.rank())));
  world.barrier(ctx.compute(), "the values of all ranks");
  if (world.rank() == 0) {
    write_file_atomic(directory / kManifestFile, manifest_text({.files = collect_parts(directory, world.size())}));
  }
  world.barrier(ctx.compute(), "their manifest");
}

ExportCount export_trained(Context& ctx, Communicator& world, const TrainedState& state, const ModelConfig& model,
                           const fs::path& directory, DType dtype, const ExportOptions& options) {
  const fs::path folder = directory / kFolder;
  fs::create_directory(folder);
  save_values(ctx, world, state, folder);
  ExportCount count;
  if (world.rank() == 0) {
    count = export_checkpoint(Checkpoint(folder), model, directory, dtype, options);
    fs::remove_all(folder);
  }
  world.barrier(ctx.compute(), "the weights of the hub");
  return count;
}

}  // namespace sluice
