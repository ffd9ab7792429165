#!/usr/bin/env bash
# Runs of sluice over two hosts, which are made of namespaces: by sluice launch and by mpirun, and each failure there is.
#   tests/hosts/two_hosts.sh
# Each run must have the losses and weights of one process, bit for bit; what fails on one host must end the run on both
# within the time-out, named with its rank and host, with a checkpoint that the run goes on from to the same bits, and with
# no process, port or file left. Takes some two minutes, and no root where namespaces of users are permitted; exits with 77
# where no namespaces are. SLUICE: another program than the one in build/release.
set -uo pipefail

# shellcheck source-path=SCRIPTDIR source=hosts.sh
source "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

timeout=6 # of a wait between ranks, in seconds
steps=600
ranks=4
# Between the failure and the end of every process: the wait's time-out, then the signals of the launchers.
ends_within=$((timeout + 14))

# Two stages, of two ranks that share parameters and experts. An error of saving is one of the run.
configuration() {
  cat <<END
step_scheduler: {global_batch_size: 8, local_batch_size: 1, max_steps: $steps, ckpt_every_steps: 20}
model:
  config: {model_type: qwen3_moe, vocab_size: 256, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
    num_key_value_heads: 1, head_dim: 8, num_experts: 4, num_experts_per_tok: 2, norm_topk_prob: true,
    moe_intermediate_size: 8, max_position_embeddings: 32, rope_theta: 10000.0, rms_norm_eps: 1.0e-6}
dataset: {_target_: mock, seq_len: 16}
distributed: {pp_size: 2, ep_size: 2}
optimizer: {lr: 0.003}
checkpoint: {on_failure: stop}
runtime: {watchdog_seconds: $timeout}
END
}

# The command of a run, without the program; extra arguments behind its name.
train() {
  local name=$1
  shift
  printf '%s\0' train "${file:-$runs/run.yaml}" --ranks "$ranks" --checkpoint.checkpoint_dir "$runs/$name" "$@"
}

# launch HOST PROCESSES NAME ARGUMENTS...: the launcher of one host, in the background; its process is $!.
launch() {
  local host=$1 processes=$2 name=$3
  local -a command
  shift 3
  mapfile -d '' -t command < <(train "$name" "$@")
  become "$host" "$sluice" launch --nproc "$processes" --nnodes 2 --node-rank $((${host#node} - 1)) \
    --master node1:29500 --restarts "${restarts:-0}" -- "${command[@]}" >"$at/log/$name.$host" 2>&1 &
}

# launch_both PROCESSES NAME ARGUMENTS...
launch_both() {
  launch node1 "$@"
  first=$!
  launch node2 "$@"
  second=$!
}

# mpirun_both NAME ARGUMENTS...: mpirun on the first host, in the background.
mpirun_both() {
  local name=$1
  local -a command
  shift
  mapfile -d '' -t command < <(train "$name" "$@")
  printf '%s slots=2\n' "${hosts[@]}" >"$at/hostfile"
  become node1 mpirun --hostfile "$at/hostfile" -n 4 --bind-to none --oversubscribe "$sluice" "${command[@]}" \
    >"$at/log/$name.node1" 2>&1 &
  first=$!
  second=
  : >"$at/log/$name.node2"
}

# Waits for the end of what was begun last: `result` is the exit codes of both launchers, or that of mpirun.
await() {
  local process code
  result=
  for process in $first $second; do
    code=0
    wait "$process" 2>/dev/null || code=$?
    result+="${result:+ }$code"
  done
}

# A process of the run on a host.
one_of() { processes_of "$1" | grep -F -- "/bin/sluice train" | sed -n "${2:-1}s/ .*//p"; }

# Trains on one host, in one process.
alone() {
  local -a command
  mapfile -d '' -t command < <(train "$@")
  on node1 "$sluice" "${command[@]}" >"$at/log/alone" 2>&1 || { sed 's/^/    /' "$at/log/alone" && return 1; }
}

# Begins a run of launchers or of mpirun and returns when it has saved: start launch_both|mpirun_both NAME ARGUMENTS...
start() {
  local by=$1 name=$2
  shift 2
  if [[ $by == launch_both ]]; then launch_both 2 "$name" "$@"; else mpirun_both "$name" "$@"; fi
  check "it begins and saves" wait_until 60 test -e "$runs/$name/step-40"
}

# What must hold after each failure, which was at the time `since`.
ended() {
  local name=$1 since=$2
  check "all is ended within $ends_within s" at_most $((SECONDS - since)) "$ends_within"
  check "no process, port or file is left" wait_until 5 nothing_left || left_over | sed 's/^/    /'
  show_errors "$at/log/$name.node1"
  show_errors "$at/log/$name.node2"
  check "the run goes on from its last checkpoint to the bits of one that nothing befell" goes_on "$name"
}

fails() { [[ " $* " != *" 0 "* ]] || { say "    the exit codes are $*" && return 1; }; }

goes_on() { alone "$1" --resume && says "$at/log/alone" "goes on from step" && same_run whole "$1" "$steps"; }

# --- the cases --------------------------------------------------------------------------------------------------

same_bits() {
  say "4 ranks on two hosts have the losses and weights of one process"
  check "one process, 4 threads" alone whole
  launch_both 2 launch4
  await
  check "sluice launch, 2 processes on each host: ends well" is "$result" "0 0"
  check "it says that there are two hosts" says "$at/log/launch4.node1" "^4 ranks in 4 processes on 2 hosts"
  check "only the first process speaks" is "$(wc -c <"$at/log/launch4.node2")" 0
  check "bit-identical" same_run whole launch4 "$steps"
  launch_both 1 launch2
  await
  check "sluice launch, 1 process of 2 threads on each host: ends well" is "$result" "0 0"
  check "bit-identical" same_run whole launch2 "$steps"
  check "no process, port or file is left" wait_until 5 nothing_left || left_over | sed 's/^/    /'
  ((mpi)) || return
  mpirun_both mpi4
  await
  check "mpirun, 2 processes on each host: ends well" is "$result" 0
  check "it says that there are two hosts" says "$at/log/mpi4.node1" "^4 ranks in 4 processes on 2 hosts"
  check "bit-identical" same_run whole mpi4 "$steps"
  check "no process, port or file is left" wait_until 5 nothing_left || left_over | sed 's/^/    /'
}

killed() {
  local by=$1 host=$2 other=node$((3 - ${2#node})) name=killed_${2}_$1 since
  say "kill -9 of a process on $host ($by)"
  start "$by" "$name"
  kill -KILL "$(one_of "$host")"
  since=$SECONDS
  await
  check "all fail" fails "$result"
  if [[ $by == launch_both ]]; then
    check "the launcher of $host says that it was killed" says "$at/log/$name.$host" "was killed by SIGKILL"
    check "$other names the host, and the rank or the process" says "$at/log/$name.$other" \
      "rank [0-9] on host $host ended or cannot be reached|host [01] [(]${host}[)]: process [0-9] of 4 .* was killed"
  else
    check "mpirun names rank and host" says "$at/log/$name.node1" "process rank [23] .* on node $host exited on signal 9"
  fi
  ended "$name" "$since"
}

restarted() {
  local name=restarted
  say "kill -9 of a process on node2, and --restarts 1 on both hosts"
  restarts=1 start launch_both "$name" --resume
  kill -KILL "$(one_of node2)"
  await
  check "both end well" is "$result" "0 0"
  check "the run went on from its last checkpoint" says "$at/log/$name.node1" "goes on from step [0-9]*0 of $steps"
  check "bit-identical" same_run whole "$name" "$steps"
  check "no process, port or file is left" wait_until 5 nothing_left || left_over | sed 's/^/    /'
  show_errors "$at/log/$name.node1"
  show_errors "$at/log/$name.node2"
}

stopped() {
  local by=$1 name=stopped_$1 since
  say "a process on node2 is stopped, and never goes on ($by)"
  start "$by" "$name"
  kill -STOP "$(one_of node2)"
  since=$SECONDS
  await
  check "all fail" fails "$result"
  check "step, rank and host are named" says "$at/log/$name.node1" "step [0-9]+.: .*no answer from rank [23] on host node2"
  ended "$name" "$since"
}

cut_link() {
  local by=$1 name=cut_$1 since
  say "the cable between the hosts is pulled ($by)"
  start "$by" "$name"
  on node2 ip link set eth0 down
  since=$SECONDS
  await
  check "all fail" fails "$result"
  if [[ $by == launch_both ]]; then
    check "node1 names the other host" says "$at/log/$name.node1" "rank [23] on host node2|host 1 [(]node2[)]"
    check "node2 names the other host" says "$at/log/$name.node2" "rank [01] on host node1|host 0 [(]node1[)]"
  else
    check "mpirun names the host" says "$at/log/$name.node1" "Remote daemon: .* on node node2"
  fi
  on node2 ip link set eth0 up
  ended "$name" "$since"
}

full_disk() {
  local name=full since
  say "a process on node2 can write no more, as on a full disk"
  start launch_both "$name"
  prlimit --pid "$(one_of node2)" --fsize=4096
  since=$SECONDS
  await
  check "all fail" fails "$result"
  check "node2 says what failed, and why" says "$at/log/$name.node2" "step [0-9]+ is not saved: .*File too large"
  check "node1 names rank and host" says "$at/log/$name.node1" "rank [23] on host node2"
  ended "$name" "$since"
}

# Of a run that failed before its first step: its name, and when it began.
check_nothing_made() {
  check "all is ended within $ends_within s" at_most $((SECONDS - $2)) "$ends_within"
  check "no process, port or file is left" wait_until 5 nothing_left || left_over | sed 's/^/    /'
  check "no step is made" test ! -e "$runs/$1"
  show_errors "$at/log/$1.node1"
  show_errors "$at/log/$1.node2"
}

thrown() {
  local name=thrown since=$SECONDS
  say "the data are on node1 alone"
  on node1 cp -r /usr/share/common-licenses /tmp/data
  launch_both 2 "$name" --dataset._target_ bytes --dataset.path /tmp/data
  await
  check "all fail" fails "$result"
  check "node2 says what failed" says "$at/log/$name.node2" "/tmp/data does not exist"
  check "node1 names the host" says "$at/log/$name.node1" "rank [23] on host node2|host 1 [(]node2[)]"
  on node1 rm -r /tmp/data
  check_nothing_made "$name" "$since"
}

other_yaml() {
  local name=other since=$SECONDS
  say "node2 has another YAML"
  { configuration && echo "seed: 7"; } >"$runs/other.yaml"
  launch node1 2 "$name"
  first=$!
  file=$runs/other.yaml launch node2 2 "$name"
  second=$!
  await
  check "both end as after a user's mistake" is "$result" "2 2"
  check "the value and the host are named" says "$at/log/$name.node1" "configuration differs" "seed: 7" "node2"
  check_nothing_made "$name" "$since"
}

absent() {
  local name=absent since=$SECONDS
  local -a command
  say "node2 never comes (no launcher: torchrun's names)"
  mapfile -d '' -t command < <(train "$name")
  become node1 env RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=node1 "$sluice" "${command[@]}" \
    >"$at/log/$name.node1" 2>&1 &
  first=$!
  second=
  await
  check "it fails" fails "$result"
  check "who is missing is said" says "$at/log/$name.node1" "1 of 2 processes .* process 1 is missing"
  check "all is ended within $ends_within s" at_most $((SECONDS - since)) "$ends_within"
  check "no process, port or file is left" wait_until 5 nothing_left || left_over | sed 's/^/    /'
  show_errors "$at/log/$name.node1"
}

launcher_killed() {
  local name=launcher since
  say "kill -9 of the launcher of node2"
  start launch_both "$name"
  kill -KILL "$second"
  since=$SECONDS
  await
  check "all fail" fails "$result"
  check "node1 names rank and host" says "$at/log/$name.node1" "rank [23] on host node2"
  ended "$name" "$since"
}

asked() {
  local name=asked since
  say "SIGUSR1 to the launcher of node2: all save and end"
  start launch_both "$name"
  kill -USR1 "$second"
  since=$SECONDS
  await
  check "the launcher that got it ends with 128 + the signal" is "${result#* }" 138
  check "it is saved" says "$at/log/$name.node1" "is saved; to go on:"
  ended "$name" "$since"
}

main() {
  need ip ss unshare nsenter setpriv prlimit pgrep
  [[ -x $program ]] || skip "there is no $program (./run --version makes it)"
  enter_sandbox "$@"
  make_hosts
  "$sluice" --version
  mpi=0
  if ! "$sluice" doctor | grep -q "under mpirun"; then
    say "without mpirun: this program is built without MPI"
  elif ! command -v mpirun >/dev/null; then
    say "without mpirun: it is not installed (Debian: openmpi-bin)"
  else
    mpi=1
    mpirun --version | head -n 1
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=$at/enter
    # Without these mpirun itself waits for ten minutes for a host that is gone.
    export OMPI_MCA_oob_tcp_keepalive_time=3 OMPI_MCA_oob_tcp_keepalive_intvl=1 OMPI_MCA_oob_tcp_keepalive_probes=2
  fi
  say "Linux $(uname -r), $(nproc) cores, $(date -u +%Y-%m-%d)"
  configuration >"$runs/run.yaml"
  same_bits
  killed launch_both node2
  killed launch_both node1
  restarted
  stopped launch_both
  cut_link launch_both
  full_disk
  thrown
  other_yaml
  absent
  launcher_killed
  asked
  if ((mpi)); then
    killed mpirun_both node2
    stopped mpirun_both
    cut_link mpirun_both
  fi
  finish
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
