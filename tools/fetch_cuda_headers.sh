#!/usr/bin/env bash
# Fetches the two header-only libraries of the CUDA build that Debian does not have, from their packages on PyPI, into
# build/cuda_headers/NAME-VERSION (another folder: the argument). What is there is left alone; other versions go.
#   cudnn-frontend  cuDNN's graph interface (MIT), include/            attention
#   cutlass         CUTLASS (BSD-3-Clause), include/ and util/         grouped products
# Without them the build works and takes slower kernels of its own.
#   tools/fetch_cuda_headers.sh [FOLDER]
#   tools/fetch_cuda_headers.sh --missing [FOLDER]    only says what is not there: name, version, what it is for
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
only_ask=no
if [[ ${1:-} == --missing ]]; then
  only_ask=yes
  shift
fi
target=${1:-$root/build/cuda_headers}
host=https://files.pythonhosted.org/packages

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $1"
  shift
  for line in "$@"; do say "       $line"; done
  exit 1
}

download() {
  local url=$1 to=$2
  if command -v curl >/dev/null; then
    curl --fail --silent --show-error --location --retry 2 --connect-timeout 10 --max-time 300 --output "$to" "$url"
  elif command -v wget >/dev/null; then
    wget --no-verbose --tries=3 --timeout=30 --output-document="$to" "$url"
  else
    fail "neither curl nor wget is installed"
  fi
}

# fetch NAME VERSION PURPOSE SHA256 URL FROM TO [FROM TO]...: folder FROM of the package becomes NAME-VERSION/TO.
fetch() {
  local name=$1 version=$2 purpose=$3 sha256=$4 url=$host/$5 made=$target/$1-$2 other
  shift 5
  [[ ! -d $made ]] || return 0
  if [[ $only_ask == yes ]]; then
    printf '%s %s: %s\n' "$name" "$version" "$purpose"
    return
  fi
  say "fetching the headers of $name $version"
  local package=$work/$name.whl unpacked=$work/$name
  download "$url" "$package" || fail "$name $version could not be fetched from $url" \
    "with a network, run tools/fetch_cuda_headers.sh again"
  [[ $(sha256sum "$package") == "$sha256 "* ]] || fail "$url is not the file that was expected: its SHA-256 differs"
  mkdir -p "$unpacked/all" "$unpacked/kept"
  (cd "$unpacked/all" && cmake -E tar xf "$package")
  while (($#)); do
    mv "$unpacked/all/$1" "$unpacked/kept/$2"
    shift 2
  done
  cp "$unpacked"/all/*.dist-info/licenses/LICENSE.txt "$unpacked/kept/"
  for other in "$target/$name"-*; do
    if [[ -d $other ]]; then rm -rf "$other"; fi
  done
  # Whole or not at all, whoever else does the same.
  mv -T "$unpacked/kept" "$made" 2>/dev/null || [[ -d $made ]] || fail "$made could not be made"
}

if [[ $only_ask == no ]]; then
  mkdir -p "$target"
  work=$(mktemp -d "$target/.fetching-XXXXXX")
  trap 'rm -rf "$work"' EXIT
fi

# Only headers are taken: the build for one kind of machine does for all.
fetch cudnn-frontend 1.23.0 "attention by cuDNN" \
  7bdae232a3071501012611fab14aae34dd16983205e56d3c1641317910fdd385 \
  be/18/5053e0f567eb1e6ce4f6584272312d1d9541180f7984699c8c9f02f4a3d6/nvidia_cudnn_frontend-1.23.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl \
  include include
fetch cutlass 4.2.0.0 "products of the experts by CUTLASS" \
  f9599ada45c7bcb6bf53f7d3f0a7d154183e53451c01bfa59eecd37dd4a693f6 \
  21/6b/e86fc2fd536dd4b8bd2209aa31d7002610c501b0802337787eac9c9b328c/nvidia_cutlass-4.2.0.0-py3-none-any.whl \
  cutlass_library/source/include include cutlass_library/source/tools/util/include util
