#!/usr/bin/env bash
# What only a GPU can tell, in one command of under ten minutes: the CUDA tests, the sanitizers, the time of every
# operation, and whole training steps beside PyTorch's.
#   tools/gpu_check.sh [--only PART,...] [--skip PART,...] [--minutes N] [--programs FOLDER] [--dry-run]
# Programs: FOLDER, else the carried ones (tools/pack_carry.sh), else build/release, which is built if need be.
# Results: gpu_check.json and gpu_check.log in $OUT, or build/gpu_check; written anew after every part. Kept in
# benchmarks/results/gpu/ they become docs/gpu_status.md (tools/gpu_status.py).
# Each part has its own limit; one that fails or runs out of time does not stop the others. Without a GPU the parts that
# need one are skipped; --dry-run skips them all and shows their commands.
set -uo pipefail

self=$(realpath "${BASH_SOURCE[0]}")
root=$(cd "$(dirname "$self")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $1"
  exit 2
}

# Name, seconds, what it needs. Cheap ones and those that tell most come first.
stages() {
  stage versions 40 -
  stage smoke 40 -
  stage tests 150 gpu
  stage ops 130 gpu
  stage compare 150 gpu,torch
  stage memcheck 60 gpu,compute-sanitizer
  stage racecheck 60 gpu,compute-sanitizer
  stage proxies 240 gpu
}

# --- what is here -----------------------------------------------------------------------------------------------

# The folders of the CUDA libraries that a Python installation has.
wheel_folders() {
  python3 - <<'END'
import glob, importlib.util, os
spec = importlib.util.find_spec("nvidia")
places = list(spec.submodule_search_locations) if spec else []
print(":".join(folder for place in places for folder in sorted(glob.glob(os.path.join(place, "*", "lib")))))
END
}

find_programs() {
  local folder file
  for folder in "$programs" "$root/bin" "$root/build/carry-pack/bin" "$root/build/release/bin"; do
    [[ -n $folder ]] || continue
    if [[ -x $folder/sluice && -x $folder/bench_ops ]]; then
      programs=$(realpath "$folder")
      return
    elif [[ -f $folder/sluice.gz && -f $folder/bench_ops.gz ]]; then
      # Carried ones, which also bring libraries and what they read.
      home=$(realpath "$folder/..")
      libraries=$home/lib
      programs=$work/bin
      mkdir "$programs"
      for file in "$folder"/*.gz; do gunzip -c "$file" >"$programs/$(basename "$file" .gz)"; done
      chmod +x "$programs"/*
      return
    fi
    [[ -z $programs ]] || fail "there is no sluice and bench_ops in $programs"
  done
  say "building build/release"
  (cd "$root" && cmake --preset release >/dev/null && cmake --build --preset release >&2) || fail "the build failed"
  programs=$root/build/release/bin
}

# The test programs.
find_tests() { compgen -G "$programs/test_*"; }

# Prints why something is missing, or nothing.
missing() {
  case $1 in
    -) ;;
    gpu)
      if ! command -v nvidia-smi >/dev/null; then
        printf 'no GPU: there is no nvidia-smi'
      elif [[ $(nvidia-smi -L 2>&1) != GPU* ]]; then
        printf 'no GPU: nvidia-smi lists none'
      fi
      ;;
    torch) python3 -c 'import torch' 2>/dev/null || printf 'python3 has no torch' ;;
    compute-sanitizer) command -v compute-sanitizer >/dev/null || printf 'compute-sanitizer is not installed' ;;
  esac
}

# --- parts ------------------------------------------------------------------------------------------------------

# Shows a command, and runs it with the CUDA libraries in reach unless nothing is to run.
ours() {
  printf '$ %s\n' "$*"
  [[ $dry == yes ]] || LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+${libraries:+:}$LD_LIBRARY_PATH} "$@"
}

versions() {
  python3 - "$work/environment.json" <<'END'
import importlib.metadata, json, platform, shutil, subprocess, sys

def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"none ({error})"

packages = {}
for distribution in importlib.metadata.distributions():
    name = (distribution.metadata["Name"] or "").lower()
    if name in ("torch", "triton") or name.startswith("nvidia-"):
        packages[name] = distribution.version
environment = {
    "gpu": output("nvidia-smi", "--query-gpu=name,memory.total,driver_version,clocks.max.sm", "--format=csv,noheader"),
    "nvcc": output("nvcc", "--version").splitlines()[-1:],
    "compute_sanitizer": output("compute-sanitizer", "--version").splitlines()[-1:],
    "kernel": platform.platform(), "python": platform.python_version(), "packages": packages,
    "processor": next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), ""),
}
json.dump(environment, open(sys.argv[1], "w"), indent=1)
json.dump(environment, sys.stdout, indent=1)
print()
END
  ours "$programs/sluice" --version
  ours ldd "$programs/bench_ops"
}

# The parts that need no GPU work on this machine.
smoke() {
  ours "$programs/sluice" bench --scale tiny --steps 2 &&
    ours "$programs/bench_ops" --device ref --seconds 0.001 --json "$work/ref.json"
}

tests() {
  local -a binaries
  mapfile -t binaries < <(find_tests)
  ((${#binaries[@]})) || return 1
  ours "$root/tools/gpu_tests.py" --json "$work/tests.json" --seconds "$limit" --filter "$test_filter" "${binaries[@]}"
}

ops() {
  ours "$programs/bench_ops" --device cuda --seconds 0.05 --json "$work/ops.json" || return
  [[ $dry == yes ]] || ! grep -q '"gpus": \[\]' "$work/ops.json"
}

# Settings that both sides can hold on 80 GB, in turn: ours, theirs, ours.
compare() {
  local shard layers file
  for shard in 8 1; do
    layers=$((shard == 8 ? 8 : 4))
    file=qwen3_moe_30b_1gpu$([[ $shard == 8 ]] || printf _all_experts).yaml
    ours_steps "compare_${shard}_a" "$file" --model.config.num_hidden_layers "$layers"
    printf '$ torch_moe.py --layers %s --local-shard %s\n' "$layers" "$shard"
    [[ $dry == yes ]] || timeout 75 python3 benchmarks/peers/torch_moe.py --layers "$layers" --local-shard "$shard" --warmup 1 \
      --steps 3 --json "$work/peer_$shard.json"
    ours_steps "compare_${shard}_b" "$file" --model.config.num_hidden_layers "$layers"
  done
  [[ $dry == yes || (-s $work/bench_compare_8_a.json && -s $work/peer_8.json) ]]
}

# [steps=N] ours_steps NAME FILE ARGUMENT...: three steps of a configuration, or N, after one.
ours_steps() {
  local name=$1 file=examples/benchmark/configs/$2
  local -a settings=(bench "$file" --device cuda --scale full --steps "${steps:-3}" --benchmark.warmup_steps 1 "${@:3}")
  printf 'sluice %s\n' "${settings[*]}" >"$work/command_$name"
  ours "$programs/sluice" "${settings[@]}" --json "$work/bench_$name.json"
}

# What one rank of each row computes: all the layers that fit.
proxies() {
  local -a few=() fewer=() deepseek=()
  local mib
  mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -n1)
  if ((${mib:-0} < 120000)); then
    few=(--model.config.num_hidden_layers 26)
    fewer=(--model.config.num_hidden_layers 8)
    deepseek=(--model.config.num_hidden_layers 13)  # 14 leave 0.6 GiB
  fi
  ours_steps local_shard qwen3_moe_30b_1gpu.yaml "${few[@]}"
  ours_steps gpt_oss_120b gpt_oss_120b_1gpu.yaml
  steps=2 ours_steps kimi_k2 kimi_k2_1gpu.yaml
  steps=2 ours_steps deepseek_v3 deepseek_v3_1gpu.yaml "${deepseek[@]}"
  steps=2 ours_steps gpt_oss_20b gpt_oss_20b_1gpu.yaml
  ours_steps all_experts qwen3_moe_30b_1gpu_all_experts.yaml "${fewer[@]}"
  ours_steps all_experts_no_optimizer qwen3_moe_30b_1gpu_all_experts.yaml "${fewer[@]}" --benchmark.optimizer false
  ours_steps local_shard_no_optimizer qwen3_moe_30b_1gpu.yaml "${few[@]}" --benchmark.optimizer false
  [[ $dry == yes || (-s $work/bench_local_shard.json && -s $work/bench_all_experts.json) ]]
}

memcheck() { sanitize memcheck; }
racecheck() { sanitize racecheck; }

# Families of kernels of our own, with synchronisation inside; the sanitizer slows them a hundredfold.
sanitize() {
  ours compute-sanitizer --tool "$1" --print-limit 20 --error-exitcode 9 "$programs/test_ops" \
    --gtest_filter="$sanitized_tests" 2>&1 | tee "$work/$1.log"
  return "${PIPESTATUS[0]}"
}

# --- the frame --------------------------------------------------------------------------------------------------

# stage NAME SECONDS NEEDS
stage() {
  local name=$1 limit=$2 need reason='' start=$SECONDS code verdict left=$((deadline - SECONDS))
  if [[ -n $only && ,$only, != *,$name,* ]] || [[ ,$skip, == *,$name,* ]]; then return; fi
  printf '\n=== %s: at most %d s\n' "$name" "$limit"
  for need in ${3//,/ }; do
    [[ -n $reason ]] || reason=$(missing "$need")
  done
  verdict=skipped
  if [[ -z $reason && $dry == no && $left -lt 10 ]]; then
    verdict="out of time" reason="not reached"
  fi
  if [[ $dry == yes && $3 != - ]]; then reason="dry run${reason:+; $reason}"; fi
  if [[ -n $reason ]]; then
    if [[ $dry == yes ]]; then within 20 "$name"; fi
    printf '%s: %s\n' "$verdict" "$reason"
  else
    ((limit <= left)) || limit=$left
    within "$limit" "$name"
    code=$?
    case $code in
      0) verdict=ok ;;
      124 | 137) verdict="out of time" ;;
      *) verdict="failed ($code)" ;;
    esac
  fi
  printf '%s\t%s\t%d\t%s\n' "$name" "$verdict" $((SECONDS - start)) "$reason" >>"$work/parts.tsv"
  python3 "$root/tools/gpu_collect.py" "$work" "$out/gpu_check.json"
}

# Runs a part in a shell that can be stopped with all its children.
within() {
  export programs libraries dry work root test_filter sanitized_tests
  limit=$(($1 - 2)) timeout --kill-after=10 "$1" bash "$self" --part "$2"
}

main() {
  local minutes=9 wheels
  programs='' only='' skip='' dry=no
  while (($#)); do
    case $1 in
      --dry-run) dry=yes ;;
      --only | --skip | --minutes | --programs)
        [[ -n ${2:-} ]] || fail "$1 needs a value"
        printf -v "${1#--}" '%s' "$2"
        shift
        ;;
      *) fail "tools/gpu_check.sh does not know $1" ;;
    esac
    shift
  done
  deadline=$((SECONDS + 60 * minutes))
  out=${OUT:-$root/build/gpu_check}
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$out" || exit 2
  out=$(realpath "$out")
  test_filter=${GPU_CHECK_TESTS:-'*/cuda:*_on_cuda-*Sweep*'}
  sanitized_tests=${GPU_CHECK_SANITIZED:-'*RmsNormOps*/cuda:*SwigluOps*/cuda:*RouterOps*/cuda:*DispatchOps*/cuda:*BiasOps*/cuda:-*Sweep*'}
  command -v python3 >/dev/null || fail "there is no python3"
  home=$root libraries=''
  find_programs
  wheels=$(wheel_folders)
  libraries=$libraries${libraries:+${wheels:+:}}$wheels
  date -u +%Y-%m-%dT%H:%MZ >"$work/date"
  cd "$home" || exit 2
  {
    printf 'programs: %s\nlibraries before the system: %s\n' "$programs" "${libraries:-none}"
    stages
    printf '\n=== summary\n'
    python3 "$root/tools/gpu_collect.py" "$work" "$out/gpu_check.json" --summary
  } 2>&1 | tee "$out/gpu_check.log"
  return "${PIPESTATUS[0]}"
}

if [[ ${1:-} == --part ]]; then
  "$2"
  exit
fi
main "$@"
