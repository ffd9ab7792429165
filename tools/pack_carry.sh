#!/usr/bin/env bash
# Builds the programs of preset `carry`, and makes build/carry-pack of them: a folder to be copied to a machine with a
# Hopper GPU and the CUDA libraries of a Python installation, where tools/gpu_check.sh runs.
#   tools/pack_carry.sh [ARGUMENT OF CMAKE, e.g. -DSLUICE_WHEELS=/where/nvidia/is]...
#   bin/   sluice, bench_ops, and the test programs that have CUDA tests, stripped and compressed
#   lib/   what they need of Debian's libraries, but for the C and C++ ones
#   and of the repository what they read
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build/carry
pack=$root/build/carry-pack
most_mib=40

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $1"
  exit 1
}

cd "$root"
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
[[ -f $build/build.ninja && $# == 0 ]] || cmake --preset carry "$@" >&2
grep -q '^SLUICE_NVCC:.*=/' "$build/CMakeCache.txt" || fail "there is no nvcc to build for a GPU with"
cmake --build "$build" -j "${SLUICE_JOBS:-$(nproc)}" >&2
rm -rf "$pack"
cmake --install "$build" --prefix "$pack" --strip >/dev/null

# Asked of the programs in the build's folder, which find their libraries here.
for program in "$pack"/bin/test_*; do
  tests=$("$build/bin/${program##*/}" --gtest_list_tests --gtest_filter='*/cuda:*_on_cuda')
  grep -q '^  ' <<<"$tests" || rm "$program"
done

# What the C library and the compiler's run time are made of is everywhere; CUDA's libraries are the target's.
mkdir "$pack/lib"
(cd "$pack/bin" && printf '%s\0' *) | (cd "$build/bin" && xargs -0 ldd) | awk '$2 == "=>" {print $1, $3}' | sort -u | while read -r name file; do
  case $name in
    ld-linux* | libc.so* | libm.so* | libpthread.so* | libdl.so* | librt.so* | libstdc++.so* | libgcc_s.so*) ;;
    libcu* | libnv* | libnccl*) ;;
    *)
      [[ -f $file ]] || fail "$name is not found"
      install -m 644 "$(realpath "$file")" "$pack/lib/$name"
      ;;
  esac
done

printf '%s\0' "$pack"/bin/* | xargs -0 -n1 -P"$(nproc)" gzip -9
git ls-files -z examples benchmarks tools | xargs -0 cp --parents -t "$pack"

size_kib=$(du -sk "$pack" | cut -f1)
(cd "$pack" && du -k bin/* lib/* | sort -rn >&2)
printf '%s: %d.%d MiB\n' "${pack#"$root"/}" $((size_kib / 1024)) $((size_kib % 1024 * 10 / 1024))
((size_kib <= most_mib * 1024)) || fail "that is more than $most_mib MiB"
