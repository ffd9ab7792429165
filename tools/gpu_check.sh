#!/usr/bin/env bash
# What only a GPU can tell, in two commands of at most seven minutes each.
#   tools/gpu_check.sh [--call 1|2] [--only PART,...] [--skip PART,...] [--minutes N] [--programs FOLDER] [--dry-run]
# Call 1 (the default) tells whether the CUDA backend works and where its time goes: tests, whole steps by operation,
# every operation alone, memcheck, kernels under Nsight Compute. Call 2 tells how fast it is: the rows' proxies, PyTorch
# beside them, racecheck. --only takes parts of both.
# Programs: FOLDER, else the carried ones (tools/pack_carry.sh), else build/release, which is built if need be.
# Results: gpu_check.json and gpu_check.log in $OUT, or build/gpu_check; written anew after every part. Kept in
# benchmarks/results/gpu/, each call under a name of its own, they become docs/gpu_status.md (tools/gpu_status.py).
# Each part has its own limit; one that fails or runs out of time does not stop the others, and the limits of a call sum
# to less than its minutes. Without a GPU nothing is built or run; --dry-run shows the commands all the same, and runs
# the parts that need none.
set -uo pipefail

self=$(realpath "${BASH_SOURCE[0]}")
root=$(cd "$(dirname "$self")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $1"
  exit 2
}

# In which calls, name, seconds, what it needs. Those that tell most come first; `tests` has what is left.
parts() {
  cat <<'END'
12 versions 15 -
1 smoke 25 -
1 first 40 gpu
1 steps 100 gpu
1 ops 85 gpu
1 memcheck 30 gpu,compute-sanitizer
1 kernels 30 gpu,ncu
1 tests 75 gpu
2 proxies 175 gpu
2 compare 110 gpu,torch
2 racecheck 40 gpu,compute-sanitizer
END
}

# Of a call, of both: above the sum of their limits, and made for machines that are lent for 10 minutes a command and
# 15 in all, their start included.
minutes_of() {
  case $1 in
    1) printf 7 ;;
    2) printf 6 ;;
    *) printf 13 ;;
  esac
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
  [[ $dry == no ]] || fail "there are no programs to show: cmake --preset release && cmake --build --preset release"
  say "building build/release"
  (cd "$root" && cmake --preset release >/dev/null && cmake --build --preset release >&2) || fail "the build failed"
  programs=$root/build/release/bin
}

# The test programs.
find_tests() { compgen -G "$programs/test_*"; }

# Nsight Compute, which is often installed beside the PATH.
find_ncu() {
  command -v ncu || compgen -G '/usr/local/cuda/bin/ncu' || compgen -G '/opt/nvidia/nsight-compute/*/ncu' | tail -n1
}

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
    ncu) [[ -n $(find_ncu) ]] || printf 'ncu is not installed' ;;
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

# The programs work on this machine.
smoke() {
  ours "$programs/sluice" bench examples/benchmark/configs/qwen3_moe_30b_8.yaml --scale tiny --steps 2 &&
    ours "$programs/bench_ops" --device ref --seconds 0.001 --json "$work/ref.json"
}

# What everything else stands on: the libraries' products and attention, and a step of a small model.
first() {
  local -a binaries
  mapfile -t binaries < <(compgen -G "$programs/test_device")
  ((${#binaries[@]})) || [[ $dry == yes ]] || return 1
  ours "$programs/sluice" bench examples/benchmark/configs/qwen3_moe_30b_8.yaml --device cuda --scale laptop --steps 2 \
    --json "$work/small.json" --overwrite &&
    ours "$root/tools/gpu_tests.py" --json "$work/first.json" --seconds "$((limit - 10))" \
      --filter '*CudaProducts*/cuda*:*CudaAttention*/cuda*' "${binaries[@]}"
}

# Where the time of a row's step goes, by operation: full width, few micro-batches; one with the learned router.
steps() {
  local -a few=() router=(--model.config.num_hidden_layers 24) deepseek=(--memory.recompute none)
  if small_gpu; then
    few=(--model.config.num_hidden_layers 26)
    router=(--model.config.num_hidden_layers 12)
    deepseek=(--model.config.num_hidden_layers 13)
  fi
  steps=2 ours_steps qwen3_by_op qwen3_moe_30b_1gpu.yaml --ops --step_scheduler.global_batch_size 16 "${few[@]}"
  steps=2 ours_steps gpt_oss_20b_by_op gpt_oss_20b_1gpu.yaml --ops --step_scheduler.global_batch_size 8 \
    --memory.recompute none
  steps=2 ours_steps deepseek_v3_by_op deepseek_v3_1gpu.yaml --ops --step_scheduler.global_batch_size 4 "${deepseek[@]}"
  steps=2 ours_steps router_by_op qwen3_moe_30b_1gpu.yaml --ops --step_scheduler.global_batch_size 16 \
    --benchmark.balance router "${router[@]}"
  [[ $dry == yes || -s $work/bench_qwen3_by_op.json ]]
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

# What both sides can hold on 80 GB, in turn: ours, theirs, ours.
compare() {
  local -a settings=(qwen3_moe_30b_1gpu.yaml --model.config.num_hidden_layers 8)
  ours_steps compare_8_a "${settings[@]}"
  printf '$ torch_moe.py --layers 8 --local-shard 8\n'
  [[ $dry == yes ]] || timeout 75 python3 benchmarks/peers/torch_moe.py --layers 8 --local-shard 8 --warmup 1 --steps 3 \
    --json "$work/peer_8.json"
  ours_steps compare_8_b "${settings[@]}"
  [[ $dry == yes || (-s $work/bench_compare_8_a.json && -s $work/peer_8.json) ]]
}

# [steps=N] ours_steps NAME FILE ARGUMENT...: three steps of a configuration, or N, after one.
ours_steps() {
  local name=$1 file=examples/benchmark/configs/$2
  local -a settings=(bench "$file" --device cuda --scale full --steps "${steps:-3}" --benchmark.warmup_steps 1 "${@:3}")
  printf 'sluice %s\n' "${settings[*]}" >"$work/command_$name"
  ours "$programs/sluice" "${settings[@]}" --json "$work/bench_$name.json" --overwrite
}

# Less memory than an H200's: 80 GB.
small_gpu() {
  local mib
  mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -n1)
  ((${mib:-0} < 120000))
}

# What one rank of each row computes: all the layers that fit.
proxies() {
  local -a few=() fewer=() deepseek=()
  if small_gpu; then
    few=(--model.config.num_hidden_layers 26)
    fewer=(--model.config.num_hidden_layers 8)
    deepseek=(--model.config.num_hidden_layers 13)  # 14 leave 0.6 GiB
  fi
  ours_steps local_shard qwen3_moe_30b_1gpu.yaml "${few[@]}"
  steps=2 ours_steps deepseek_v3 deepseek_v3_1gpu.yaml "${deepseek[@]}"
  ours_steps gpt_oss_120b gpt_oss_120b_1gpu.yaml
  steps=2 ours_steps gpt_oss_20b gpt_oss_20b_1gpu.yaml
  steps=2 ours_steps kimi_k2 kimi_k2_1gpu.yaml
  steps=2 ours_steps all_experts qwen3_moe_30b_1gpu_all_experts.yaml "${fewer[@]}"
  [[ $dry == yes || -s $work/bench_local_shard.json ]]
}

memcheck() { sanitize memcheck; }
racecheck() { sanitize racecheck; }

# Families of kernels of our own, with synchronisation inside; the sanitizer slows them a hundredfold.
sanitize() {
  ours compute-sanitizer --tool "$1" --print-limit 20 --error-exitcode 9 "$programs/test_ops" \
    --gtest_filter="$sanitized_tests" 2>&1 | tee "$work/$1.log"
  return "${PIPESTATUS[0]}"
}

# One launch of each of six kernels of our own: how near to the GPU's limits it is, what it takes of a multiprocessor.
kernels() {
  local kernel of found=0 ncu
  ncu=$(find_ncu)
  ncu=${ncu:-ncu}
  while read -r kernel of; do
    ours timeout 10 "$ncu" --csv --section SpeedOfLight --section LaunchStats --section Occupancy --launch-count 1 \
      --kernel-name "regex:^$kernel" "$programs/bench_ops" --device cuda --seconds 0.001 --only "$of" </dev/null |
      tee "$work/kernel_$kernel.csv"
    ! grep -q '^"ID"' "$work/kernel_$kernel.csv" || found=1
  done <<'END'
rmsnorm_backward rmsnorm_backward Qwen3 30B
swiglu_backward swiglu_backward Qwen3 30B
sum_rows sum_rows Qwen3 30B
gather_rows gather_rows Qwen3 30B
cross_entropy head_loss Qwen3 30B
adamw adamw states bf16, no master
END
  [[ $dry == yes || $found == 1 ]]
}

# --- the frame --------------------------------------------------------------------------------------------------

# Does this command have a part that is in CALLS?
wanted() {
  local calls=$1 name=$2
  [[ ,$skip, != *,$name,* ]] || return 1
  if [[ -n $only ]]; then [[ ,$only, == *,$name,* ]]; else [[ $calls == *$call* ]]; fi
}

# Every name that --only and --skip give is a part's.
check_names() {
  local name
  for name in ${only//,/ } ${skip//,/ }; do
    parts | awk '{print $2}' | grep -qxF -- "$name" ||
      fail "there is no part $name; there are: $(parts | awk '{print $2}' | paste -sd' ')"
  done
}

# Does any part of this command need a GPU?
needs_gpu() {
  local calls name limit needs
  while read -r calls name limit needs; do
    if wanted "$calls" "$name" && [[ $needs == gpu* ]]; then return 0; fi
  done < <(parts)
  return 1
}

stages() {
  local -a all
  local part calls name limit needs
  mapfile -t all < <(parts)
  for part in "${all[@]}"; do
    read -r calls name limit needs <<<"$part"
    ! wanted "$calls" "$name" || stage "$name" "$limit" "$needs"
  done
}

# stage NAME SECONDS NEEDS
stage() {
  local name=$1 limit=$2 need reason='' start=$SECONDS code verdict left=$((deadline - SECONDS))
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
  local minutes='' wheels no_gpu
  programs='' only='' skip='' call=1 dry=no
  while (($#)); do
    case $1 in
      --dry-run) dry=yes ;;
      --call | --only | --skip | --minutes | --programs)
        [[ -n ${2:-} ]] || fail "$1 needs a value"
        printf -v "${1#--}" '%s' "$2"
        shift
        ;;
      *) fail "tools/gpu_check.sh does not know $1" ;;
    esac
    shift
  done
  [[ $call == [12] ]] || fail "--call $call: there are 1 and 2"
  check_names
  [[ -n $minutes ]] || minutes=$(minutes_of "$([[ -n $only ]] || printf %s "$call")")
  deadline=$((SECONDS + 60 * minutes))
  no_gpu=$(missing gpu)
  if [[ -n $no_gpu ]]; then
    [[ $dry == yes ]] || ! needs_gpu ||
      fail "$no_gpu. --dry-run shows what would run; --only versions,smoke runs what needs none"
    say "$no_gpu"
  fi
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
    printf 'programs: %s\nlibraries before the system: %s\nat most %d s\n' "$programs" "${libraries:-none}" \
      $((60 * minutes))
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
