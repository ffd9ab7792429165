# Sourced by two_hosts.sh and slurm.sh: two hosts on one machine. The script starts itself again in namespaces of its own,
# and each host has a network, a name, a /tmp and a /dev/shm within them. Whatever runs or lies there is gone with the
# first of these processes, however it ends, so there is nothing to clean up; the machine itself sees none of it.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# What the hosts share: the program as it was when the script began, and a directory for runs.
program=${SLUICE:-$root/build/release/bin/sluice}
at=/mnt
sluice=$at/bin/sluice
runs=$at/runs
hosts=(node1 node2)
addresses=(10.77.0.1 10.77.0.2)
passed=0
failed=0

say() { printf '%s\n' "$*"; }

# 77 is what ctest takes for "skipped".
skip() {
  say "skipped: $*"
  exit 77
}

need() {
  local command
  for command in "$@"; do
    command -v "$command" >/dev/null || skip "there is no $command here (Debian: apt-get install $(package_of "$command"))"
  done
}

package_of() {
  case $1 in
    ip | ss) echo iproute2 ;;
    pgrep) echo procps ;;
    *) echo util-linux ;;
  esac
}

# --- the sandbox ------------------------------------------------------------------------------------------------

# Called first, with the script's arguments: goes on in the sandbox, where it returns; the caller outside waits for it and
# passes its exit code on. Ended in whatever way, it takes the sandbox with it.
enter_sandbox() {
  [[ ${SLUICE_SANDBOX:-} != hosts ]] || return 0
  local -a namespaces=(--mount --net --pid --ipc --uts)
  # Without root, as the only user of a namespace of users.
  [[ $(id -u) == 0 ]] || namespaces+=(--user --map-root-user)
  again_in hosts "${namespaces[*]}" "$@"
}

# again_in NAME NAMESPACES ARGUMENTS...: the script once more, as the first process of new namespaces; does not return.
again_in() {
  local name=$1 refused inside code
  local -a namespaces
  read -ra namespaces <<<"$2 --fork --kill-child --mount-proc"
  shift 2
  refused=$(unshare "${namespaces[@]}" true 2>&1) || skip "namespaces are not permitted here: $refused"
  SLUICE_SANDBOX=$name setpriv --pdeathsig KILL unshare "${namespaces[@]}" bash "$0" "$@" </dev/null &
  inside=$!
  # shellcheck disable=SC2064
  trap "kill -KILL $inside 2>/dev/null" EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
  wait "$inside"
  code=$?
  trap - EXIT
  exit "$code"
}

# Two hosts, connected by a cable; /etc/hosts names both.
make_hosts() {
  local i
  mount -t tmpfs tmpfs "$at" || skip "a file system cannot be mounted here"
  mkdir "$at/bin" "$runs" "$at/log" "$at/host"
  cp "$program" "$sluice" || exit 1
  ip link set lo up
  for i in 0 1; do
    printf '%s %s\n' 127.0.0.1 localhost "${addresses[0]}" "${hosts[0]}" "${addresses[1]}" "${hosts[1]}" \
      >"$at/host/${hosts[i]}.hosts"
    unshare --net --uts --mount --ipc bash -c "
      hostname ${hosts[i]} && mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /run &&
        mount --bind $at/host/${hosts[i]}.hosts /etc/hosts && ip link set lo up && touch $at/host/${hosts[i]}.up &&
        exec sleep infinity" &
    echo $! >"$at/host/${hosts[i]}.pid"
  done
  wait_until 10 test -e "$at/host/node1.up" -a -e "$at/host/node2.up" || skip "the hosts do not come up"
  ip link add eth0 netns "$(pid_of node1)" type veth peer name eth0 netns "$(pid_of node2)" ||
    skip "network devices cannot be made here"
  for i in 0 1; do
    on "${hosts[i]}" ip address add "${addresses[i]}/24" dev eth0
    on "${hosts[i]}" ip link set eth0 up
  done
  # As ssh is called: a host and a command line.
  cat >"$at/enter" <<END
#!/bin/sh
host=\$1
shift
exec nsenter --target "\$(cat $at/host/\$host.pid)" --net --uts --mount --ipc --wdns=$runs sh -c "\$*"
END
  chmod +x "$at/enter"
}

pid_of() { cat "$at/host/$1.pid"; }

# become HOST COMMAND...: in the place of this shell, as that host, in the directory of runs.
become() { exec nsenter --target "$(pid_of "$1")" --net --uts --mount --ipc --wdns="$runs" "${@:2}"; }

# on HOST COMMAND...
on() { (become "$@"); }

# wait_until SECONDS COMMAND...: whether it came true.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" 2>/dev/null; do
    ((SECONDS < end)) || return 1
    sleep 0.05
  done
}

# --- what is left -----------------------------------------------------------------------------------------------

# Processes of a host beside the one that holds it.
processes_of() {
  local network process
  network=$(readlink "/proc/$(pid_of "$1")/ns/net")
  for process in /proc/[0-9]*; do
    [[ $(readlink "$process/ns/net" 2>/dev/null) == "$network" && ${process#/proc/} != "$(pid_of "$1")" ]] || continue
    printf '%s %s\n' "${process#/proc/}" "$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)"
  done
}

# One line for each process, open port, connection and file of the hosts. Ports that only wait for late packets are none.
left_over() {
  local host
  for host in "${hosts[@]}"; do
    processes_of "$host" | sed "s/^/$host: process /"
    on "$host" ss --no-header --numeric --tcp --udp --unix --listening | sed "s/^/$host: listens /"
    on "$host" ss --no-header --numeric --unix | sed "s/^/$host: socket /"
    on "$host" find /tmp /dev/shm -mindepth 1 | sed "s/^/$host: file /"
  done
}

nothing_left() { [[ -z $(left_over) ]]; }

# --- what holds -------------------------------------------------------------------------------------------------

# check WHAT COMMAND...: notes whether it holds.
check() {
  local what=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    say "  ok      $what"
  else
    failed=$((failed + 1))
    say "  FAILED  $what"
  fi
}

is() { [[ $1 == "$2" ]] || { say "    it is $1, not $2" && return 1; }; }

at_most() { (($1 <= $2)) || { say "    it is $1, more than $2" && return 1; }; }

# says LOG PATTERN...: whether the log of a run has a line for each; shown in full where it has not.
says() {
  local log=$1 pattern
  shift
  for pattern in "$@"; do
    grep -qE -- "$pattern" "$log" || { say "    no line is \"$pattern\" in:" && sed 's/^/      /' "$log" && return 1; }
  done
}

# The errors in a log, for those who read the record of a run of this script.
show_errors() {
  sed -nE '/error: |^mpirun noticed|^MPI_ABORT|^ORTE has lost/,/^$/p' "$1" | grep -vE '^step|^saved|^-+$|^$' | cut -c1-300 | awk '!seen[$0]++' |
    sed "s/^/    $(basename "$1" | sed 's/.*[.]//') | /"
}

# Step, loss and gradient norm of each step, in full.
losses_of() { grep -oE '"(step|loss|grad_norm)":[^,}]*' "$1/training.jsonl"; }

# same_run A B STEP: both have the same losses in all steps, and the same weights and moments at the step.
same_run() {
  local file count=0
  cmp <(losses_of "$runs/$1") <(losses_of "$runs/$2") || return 1
  for file in "$runs/$1/step-$3"/*.safetensors; do
    cmp "$file" "$runs/$2/step-$3/${file##*/}" || return 1
    count=$((count + 1))
  done
  ((count > 0)) && (($(find "$runs/$2/step-$3" -name '*.safetensors' | wc -l) == count))
}

# Ends the script, with what a test runner and a person read.
finish() {
  say "$passed held, $failed failed"
  ((failed == 0))
  exit
}
