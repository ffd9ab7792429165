// Checkpoints as a run leaves them, made without one.
#pragma once

#include "comm/mesh.h"
#include "e2e/program.h"

namespace sluice::test {

// A golden's weights in f32 as a checkpoint, written by the ranks of a mesh, with config.json, config.yaml and a
// tokenizer's file beside it; returns its path.
std::string checkpoint_of(const Folder& folder, const std::string& name, const std::string& golden,
                          const MeshSpec& mesh = {});

}  // namespace sluice::test
