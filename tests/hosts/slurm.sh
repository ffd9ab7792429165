#!/usr/bin/env bash
# Runs row R4's layout (8 ranks, expert parallel over all) at tiny scale under Slurm on two hosts that are made of
# namespaces, without systemd.
#   tests/hosts/slurm.sh [--install]
# srun and sbatch must have the losses and weights of one process, bit for bit; at the signal of --signal=USR1@ a job saves,
# and requeued it goes on to the same bits. Takes some five minutes. Needs root, slurmctld, slurmd, slurm-client,
# slurm-wlm-basic-plugins, munge, libpmix2, openmpi-bin and iproute2; with --install they are installed by apt-get into a
# layer above the file system that is gone with the script: the machine itself stays as it is. Exits with 77 where
# something is missing. SLUICE: another program than the one in build/release.
set -uo pipefail

# shellcheck source-path=SCRIPTDIR source=hosts.sh
source "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

script=$root/tests/hosts/slurm.sh
packages=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libpmix2 openmpi-bin iproute2)
ranks=8
short=20 # steps of the runs that nothing is to interrupt

# --- the packages -----------------------------------------------------------------------------------------------

# In a namespace of mounts: the script once more, where the packages are installed in a layer that is kept in memory.
install_in_a_layer() {
  local layer=$at/layer directory
  if ! { mount -t tmpfs -o mode=755 tmpfs "$at" && mkdir "$layer" "$at/above" "$at/work" &&
    mount -t overlay -o "lowerdir=/,upperdir=$at/above,workdir=$at/work" overlay "$layer"; }; then
    skip "a layer above the file system is not permitted here"
  fi
  for directory in dev sys proc; do mount --rbind "/$directory" "$layer/$directory"; done
  # Where the repository or the program is on a file system of its own.
  for directory in "$root" "$(dirname "$program")"; do
    [[ -e $layer/$directory/. ]] && continue
    mkdir -p "$layer/$directory" && mount --bind "$directory" "$layer/$directory"
  done
  printf '#!/bin/sh\nexit 101\n' >"$layer/usr/sbin/policy-rc.d" # no service is started
  chmod +x "$layer/usr/sbin/policy-rc.d"
  if ! chroot "$layer" sh -c "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes \
    --no-install-recommends ${packages[*]}" >"$at/install.log" 2>&1 </dev/null; then
    tail -n 20 "$at/install.log"
    exit 1
  fi
  # As the root of this namespace: one that is entered begins at its root, wherever a process in it was.
  cd "$layer" && pivot_root . "${at#/}" && umount --lazy "$at" && cd / && SLUICE_SANDBOX='' exec bash "$script"
}

# --- Slurm ------------------------------------------------------------------------------------------------------

slurm_conf() {
  cat <<END
ClusterName=sluice
SlurmctldHost=node1(${addresses[0]})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=/run/munge.socket
StateSaveLocation=/run/slurmctld
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdSpoolDir=/run/slurmd
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/builtin
InactiveLimit=0
KillWait=10
NodeName=node1 NodeAddr=${addresses[0]} CPUs=4 RealMemory=500 State=UNKNOWN
NodeName=node2 NodeAddr=${addresses[1]} CPUs=4 RealMemory=500 State=UNKNOWN
PartitionName=debug Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
END
}

start_slurm() {
  local host
  mkdir "$at/slurm"
  slurm_conf >"$at/slurm/slurm.conf"
  echo "CgroupPlugin=cgroup/v1" >"$at/slurm/cgroup.conf"
  export SLURM_CONF=$at/slurm/slurm.conf
  head -c 1024 /dev/urandom >"$at/slurm/munge.key"
  chmod 400 "$at/slurm/munge.key"
  for host in "${hosts[@]}"; do
    on "$host" munged --force --key-file="$at/slurm/munge.key" --socket=/run/munge.socket --pid-file=/run/munged.pid \
      --log-file=/run/munged.log --seed-file=/run/munged.seed
  done
  become node1 slurmctld -D >"$at/log/slurmctld" 2>&1 &
  for host in "${hosts[@]}"; do
    become "$host" slurmd -D -N "$host" >"$at/log/slurmd.$host" 2>&1 &
  done
  wait_until 30 idle || { tail -n 5 "$at"/log/slurm* && return 1; }
}

idle() { [[ $(on node1 sinfo --noheader --format %D --states idle) == 2 ]]; }

# --- runs -------------------------------------------------------------------------------------------------------

# The command of a run, without the program.
train() {
  local name=$1
  shift
  printf '%s\0' train "$runs/r4.yaml" --ranks "$ranks" --checkpoint.checkpoint_dir "$runs/$name" "$@"
}

alone() {
  local -a command
  mapfile -d '' -t command < <(train "$@")
  on node1 "$sluice" "${command[@]}" >"$at/log/alone" 2>&1 || { sed 's/^/    /' "$at/log/alone" && return 1; }
}

# srun_both NAME OPTIONS... -- ARGUMENTS...: on both hosts; what it wrote is in log/NAME.
srun_both() {
  local name=$1
  local -a options=() command
  shift
  while [[ $1 != -- ]]; do options+=("$1") && shift; done
  mapfile -d '' -t command < <(train "$name" "${@:2}")
  on node1 srun --nodes 2 "${options[@]}" "$sluice" "${command[@]}" >"$at/log/$name" 2>&1
}

state_of() { on node1 scontrol show job "$1" | grep -oE "$2=[^ ]*" | cut -d= -f2; }

is_over() { [[ $(state_of "$1" JobState) =~ COMPLETED|FAILED|CANCELLED|TIMEOUT ]]; }

# What Slurm's own processes leave is not a run's.
left_of_runs() {
  left_over | grep -vE 'process [0-9]+ (munged|slurmctld:?|slurmd|: slurmscriptd) |listens tcp .*:681[78] |munge.socket'
}

nothing_of_runs() { [[ -z $(left_of_runs) ]]; }

nothing_is_left() { wait_until 10 nothing_of_runs || { left_of_runs | sed 's/^/    /' && return 1; }; }

# --- the cases --------------------------------------------------------------------------------------------------

with_srun() {
  say "srun"
  check "one process, 8 threads" alone "threads" --step_scheduler.max_steps "$short"
  began=$(date +%s%N)
  check "--mpi=pmix, 2 tasks of 2 ranks on each host: ends well" \
    srun_both pmix --mpi=pmix --ntasks-per-node 2 -- --step_scheduler.max_steps "$short"
  took_ms=$((($(date +%s%N) - began) / 1000000))
  check "it says that there are two hosts" says "$at/log/pmix" "8 ranks in 4 processes on 2 hosts"
  check "bit-identical" same_run threads pmix "$short"
  export MASTER_ADDR=node1
  check "--mpi=none, 3 tasks on one host and 1 on the other: ends well" \
    srun_both sockets --mpi=none --ntasks 4 --distribution arbitrary --nodelist "$(layout)" -- \
    --step_scheduler.max_steps "$short"
  unset MASTER_ADDR
  check "bit-identical" same_run threads sockets "$short"
  check "--mpi=none without MASTER_ADDR: refused" refused
  show_errors "$at/log/lost"
  check "nothing is left" nothing_is_left
}

layout() { echo node1,node1,node1,node2; }

refused() {
  ! srun_both lost --mpi=none --ntasks-per-node 2 -- && says "$at/log/lost" "MASTER_ADDR" "scontrol show hostnames"
}

with_kill() {
  say "kill -9 of a task under srun"
  srun_both killed --mpi=pmix --ntasks-per-node 2 --kill-on-bad-exit=1 -- --step_scheduler.max_steps "$long" \
    --step_scheduler.ckpt_every_steps 5 &
  local run=$! since
  check "it begins and saves" wait_until 120 test -e "$runs/killed/step-5"
  kill -KILL "$(processes_of node2 | grep -F "$sluice train" | sed -n '1s/ .*//p')"
  since=$SECONDS
  wait "$run" 2>/dev/null
  check "srun fails" test $? != 0
  check "all is ended within 30 s" at_most $((SECONDS - since)) 30
  check "Slurm names the task and the host" says "$at/log/killed" "srun: error: node2: task [23]: Killed"
  show_errors "$at/log/killed"
  check "nothing is left" nothing_is_left
}

with_sbatch() {
  local job
  say "sbatch --time=2 --signal=USR1@30 examples/slurm/cpu.sbatch, $long steps"
  check "one process, 8 threads" alone "whole" --step_scheduler.max_steps "$long"
  cp "$root/examples/slurm/cpu.sbatch" "$at/cpu.sbatch"
  job=$(on node1 env PATH="$at/bin:$PATH" sbatch --parsable --time=2 --signal=USR1@30 --output="$at/log/sbatch" \
    "$at/cpu.sbatch" "$runs/r4.yaml" --ranks "$ranks" --checkpoint.checkpoint_dir "$runs/requeued" \
    --step_scheduler.max_steps "$long")
  check "it runs and is over within 10 minutes" wait_until 600 is_over_or_goes_on "$job"
  grep -h "JobId=$job" "$at/log/slurmctld" | sed 's/^/    | /' | tail -n 20
  check "it is over well" is "$(state_of "$job" JobState) $(state_of "$job" ExitCode)" "COMPLETED 0:0"
  check "it was requeued" test "$(state_of "$job" Restarts)" -ge 1
  check "the signal saved" says "$at/log/sbatch" "is saved; to go on:"
  check "requeued, it went on from there" says "$at/log/sbatch" "goes on from step [1-9][0-9]* of $long"
  check "bit-identical to the run that nothing interrupted" same_run whole requeued "$long"
  grep -hE "is saved; to go on|goes on from|^done|ranks in" "$at/log/sbatch" | cut -c1-200 | sed 's/^/    | /'
  check "nothing is left" nothing_is_left
}

# Slurm lets a requeued job wait for two minutes, which is not what is tested.
is_over_or_goes_on() {
  [[ $(state_of "$1" Reason) != BeginTime ]] || on node1 scontrol update JobId="$1" StartTime=now
  is_over "$1"
}

main() {
  if [[ ${1:-} == --install ]]; then
    [[ $(id -u) == 0 ]] || skip "installing packages needs root"
    [[ ${SLUICE_SANDBOX:-} == layer ]] || again_in layer "--mount --pid" "$@"
    install_in_a_layer
  fi
  local command
  for command in ip ss mpirun munged slurmctld slurmd srun sbatch scontrol sinfo; do
    command -v "$command" >/dev/null ||
      skip "there is no $command here (Debian: apt-get install ${packages[*]}; or --install: for this script alone)"
  done
  need unshare nsenter setpriv
  [[ $(id -u) == 0 ]] || skip "Slurm's processes need root"
  [[ -x $program ]] || skip "there is no $program (./run --version makes it)"
  enter_sandbox "$@"
  make_hosts
  "$sluice" --version
  slurmctld -V
  mpirun --version | head -n 1
  say "Linux $(uname -r), $(nproc) cores, $(date -u +%Y-%m-%d)"
  start_slurm || { say "Slurm does not come up" && exit 1; }
  "$sluice" config "$root/examples/benchmark/configs/qwen3_moe_30b_8.yaml" --scale tiny --ranks "$ranks" \
    --step_scheduler.global_batch_size 512 --checkpoint.enabled true --runtime.watchdog_seconds 20 >"$runs/r4.yaml" || exit 1
  with_srun
  # For about two minutes: the signal comes after half a minute at the earliest, and after one and a half at the latest.
  long=$((short * 120000 / took_ms + short))
  with_kill
  with_sbatch
  finish
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
