"""How each printed command is checked: what stands in for its placeholders, what makes it small, why some are not run."""
import pathlib
import re

# A new command that runs at the size it is printed at needs nothing here. Otherwise, by what the failure says:
#   a placeholder or a file of the reader's         STAND_INS ("--from FILE": "--from benchmarks/results/laptop.json"), or
#                                                   FILES if it must be made
#   too slow                                        SMALLER: words that are put in the place of others ("R1 --layout row":
#                                                   "R4 --layout row"), or added
#   cannot run here (GPU, network, cluster, ...)    NOT_RUN, with its class and word for word
#   a script of ours that is new                    SCRIPTS
#   prose that was taken for a command, or for more of it than it is      PROSE, NO_COMMANDS
#   an option that a message advises                                      BASES: the command it goes behind
# Each entry must match something that is printed: one that does not is stale and fails. Substitutions are of whole words
# that are spelt as here, so that a misspelt one stays as it is and fails.

# --- what is a command ----------------------------------------------------------------------------------------------

# First line of a block without a language that is what a program wrote.
OUTPUT = re.compile(r"sluice \d")

# Words that follow a command, an option or the program's name in a sentence.
PROSE = {
    "and", "continue", "does", "draws", "has", "is", "lists", "need", "needs", "pre-trains", "runs", "says",
    "shows", "times", "trains", "was", "will",
}

# What begins as a command does and is none: formats that are filled with other things than a command's words.
NO_COMMANDS = {
    "sluice {:<8} {}": "a line of the list of commands",
}

# Options outside of advise() that tell what to add to a command, by file.
ADVICE = {
    ("src/launch/binding.cpp", "--bind-to none"),
    ("src/launch/binding.cpp", "--cpus-per-task=N"),
    ("src/plan/advice.cpp", "--ranks {}"),
    ("src/training/benchmark.cpp", "--scale laptop"),
    ("src/training/benchmark.cpp", "--scale tiny"),
}

# The command that an advised option goes behind, by the file that gives the advice.
BASES = {
    "src/cli/config_command.cpp": "sluice config",
    "src/comm/mpi/session.cpp": "srun",
    "src/cli/generate.cpp": "sluice generate DIRECTORY",
    "src/cli/outputs.cpp": "sluice train FILE",
    "src/cli/run_directory.cpp": "sluice train FILE",
    "src/cli/trained_export.cpp": "sluice train FILE",
    "src/config/load.cpp": "sluice config FILE",
    "src/device/pool.cpp": "sluice bench FILE",
    "src/launch/binding.cpp": "mpirun",
    "src/launch/first_host.cpp": "sluice launch",
    "src/launch/further_host.cpp": "sluice launch",
    "src/launch/local_plan.cpp": "sluice launch",
    "src/plan/advice.cpp": "sluice plan FILE",
    "src/training/benchmark.cpp": "sluice bench FILE",
}

# --- what stands in for what ------------------------------------------------------------------------------------------

# Words by what is given in their place. The longest match wins.
STAND_INS = {
    "FILE": "my.yaml",
    "--json FILE": "--json out/NEW",
    "--from FILE": "--from benchmarks/results/laptop.json",
    "--prompt-file FILE": "--prompt-file notes.txt",
    "ROW": "R4",
    "DIRECTORY": "model",
    "OUT": "out/NEW",  # NEW: a name that no other command has
    "TEXT": "The",
    "IDS": "1,2,3",
    "CASE": "qwen3_moe",
    "VENV/bin/python": "venv/bin/python",
    "build/fuzz/bin/fuzz_NAME": "build/fuzz/bin/fuzz_yaml",
    "tests/fuzz/corpus/NAME": "tests/fuzz/corpus/yaml",
    "tools/gpu_collect.py FOLDER FILE": "tools/gpu_collect.py out out/gpu.json",
}
# A command or an option that is read as another.
EXACT = {
    "./run config FILE [--key value ...]": "./run config FILE --seed 3",
    "./run COMMAND --help": "sluice {} --help",
    "sluice COMMAND --help": "sluice {} --help",
    "sluice {}": "sluice {} --help",
    "--section.key value": "--dist_env.timeout_minutes 3",
    "--distributed.*": "--distributed.ep_size",
}
# Commands with what the program fills in: by each of a list.
FILLS = {
    "sluice {} --help": "subcommands",
    "sluice config --keys {}": "sections",
    "sluice config {}": ["R4"],
    "sluice plan FILE --ranks {}": ["2"],
    "sluice bench {}": ["R4", "R4 --layout row"],
    "sluice bench{} --layout row": [" R4"],
    "sluice generate DIRECTORY --max-tokens {}": ["2"],
}

OWN = """# A small model of bytes.
step_scheduler: {global_batch_size: 4, local_batch_size: 1, max_steps: 4}
model:
  config: {model_type: qwen3_moe, vocab_size: 256, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
    num_key_value_heads: 1, head_dim: 8, num_experts: 4, num_experts_per_tok: 2, norm_topk_prob: true,
    moe_intermediate_size: 8, max_position_embeddings: 64, rope_theta: 10000.0, rms_norm_eps: 1.0e-6}
dataset: {_target_: mock, seq_len: 16}
benchmark: {warmup_steps: 1}
"""
NEMO = """# As NeMo AutoModel writes a benchmark.
recipe: BenchmarkingRecipeForNextTokenPrediction
benchmark: {{warmup_steps: 10, peak_tflops: 989, nsys_start: -1, nsys_end: -1, nsys_ranks: [], num_nodes: 1}}
step_scheduler: {{global_batch_size: {gbs}, local_batch_size: {lbs}, ckpt_every_steps: 1000, max_steps: 30}}
distributed:
  strategy: fsdp2
  pp_size: {pp}
  ep_size: {ep}
  activation_checkpointing: true
  pipeline: {{pp_schedule: interleaved1f1b, pp_microbatch_size: 1, layers_per_stage: 2,
    round_virtual_stages_to_pp_multiple: up}}
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_config
  config: {{_target_: transformers.AutoConfig.from_pretrained, pretrained_model_name_or_path: {model}}}
  backend: {{attn: te, linear: te, rms_norm: te, experts: gmm, dispatcher: deepep, fake_balanced_gate: true}}
checkpoint: {{enabled: false}}
dataset: {{_target_: nemo_automodel.components.datasets.llm.mock_iterable_dataset.MockIterableDataset, seq_len: 4096}}
optimizer: {{_target_: torch.optim.Adam, lr: 1.0e-4}}
"""
# Paths that are not there before somebody makes them.
MADE_LATER = {"benchmarks/results/gpu/"}

# Files that the reader has, by name.
FILES = {
    "my.yaml": OWN,
    "night.yaml": (pathlib.Path(__file__).resolve().parents[2] / "examples/pretrain/tiny_text.yaml").read_text(),
    "qwen3_moe_30b_te_deepep.yaml": NEMO.format(gbs=512, lbs=4, pp=1, ep=8, model="Qwen/Qwen3-30B-A3B"),
    "deepseek_v3_te_deepep_1024.yaml": NEMO.format(gbs=8192, lbs=8, pp=4, ep=64, model="deepseek-ai/DeepSeek-V3"),
    "gptoss_120b_te_mxfp8_gb200.yaml": NEMO.format(gbs=512, lbs=2, pp=1, ep=64, model="openai/gpt-oss-120b"),
}

# --- smaller --------------------------------------------------------------------------------------------------------

# By subcommand: words put in the place of others wherever they stand, and words added unless their first one is there.
SMALLER = {
    "bench": ({"--scale laptop": "--scale tiny", "--device cuda": "--device cpu",
               "--layout row": "R4 --layout row", "R4 --layout row": "R4 --layout row",
               "R3 --layout row": "R4 --layout row", "R1 R2 R3 --layout row": "R4 --layout row"},
              ["--scale tiny", "--steps 1"]),
    "train": ({"--device cuda": "--device cpu", "--step_scheduler.max_steps 330": "--step_scheduler.max_steps 4",
               "--step_scheduler.max_steps 360": "--step_scheduler.max_steps 6"},
              ["--step_scheduler.max_steps 2", "--step_scheduler.global_batch_size 2",
               "--step_scheduler.local_batch_size 2", "--lr_scheduler.lr_warmup_steps 0",
               "--validation_dataset.num_samples 4"]),
    "eval": ({}, ["--batches 1"]),
    "generate": ({"--max-tokens 100": "--max-tokens 3"}, ["--max-tokens 3", "--tokens 1,2"]),
}

# What is given in the place of an added option, by that.
IN_PLACE = {"--tokens": ["--prompt", "--prompt-file"], "--scale": ["--from"], "--steps": ["--from"]}

# --- not run --------------------------------------------------------------------------------------------------------

CLASSES = {
    "gpu": "needs a GPU; run on the CPU instead, or its flags read",
    "network": "fetches from the network",
    "packages": "installs packages, as root",
    "torch": "needs a Python environment with torch",
    "build": "is the build or the tests themselves",
    "launcher": "is for several processes, which tests/comm/mpi and tests/hosts start",
    "long": "takes minutes or gigabytes whatever its size",
}
# By the command's beginning, where the rest can be read without running it.
READ = {
    "./run test": "build",
    "cmake": "build",
    "build/fuzz/bin/fuzz_yaml": "build",
    "venv/bin/python": "torch",
    "mpirun": "launcher",
    "srun": "launcher",
    "sbatch": "launcher",
}
# By the whole command, where it cannot.
NOT_RUN = {
    ".ci/run": "build",
    ".ci/run --stage tidy_all": "build",
    "nsys profile --capture-range=cudaProfilerApi --trace=cuda,nvtx -o build/r4": "gpu",
    "nsys stats --report nvtx_gpu_proj_sum build/r4.nsys-rep": "gpu",
    "python3 -m venv venv": "network",
    "python3.11 -m venv venv": "network",
    "pip install --no-deps --require-hashes -r requirements.txt": "network",
    "venv/bin/pip install --no-deps -r requirements.txt": "network",
    "venv/bin/pip install --no-deps --require-hashes -r tests/parity/requirements.txt": "network",
    "apt-get install python3-torch libopenblas0-pthread libblis4-openmp": "packages",
}
# Programs of ours that are no subcommand, by the command's beginning: a class, or "run" with what is added.
SCRIPTS = {
    "tools/gpu_check.sh": ("gpu", "--dry-run --programs programs"),
    "tools/gpu_tests.py": ("gpu", None),
    "tools/gpu_status.py": ("run", ""),
    "tools/gpu_collect.py": ("run", ""),
    "tools/pack_carry.sh": ("build", None),
    "tools/fetch_cuda_headers.sh": ("network", None),
    "tools/fetch_cuda_headers.sh --missing": ("run", ""),
    "tests/hosts/two_hosts.sh": ("launcher", None),
    "tests/hosts/slurm.sh": ("packages", None),
    "tests/tools/printed_commands.py": ("build", None),
    "tests/mutants/run.py": ("build", None),
    "tests/mutants/run.py --list": ("run", ""),
    "tests/mutants/run.py --check": ("run", ""),
    "benchmarks/table.py": ("run", ""),
    "benchmarks/table_page.py --record": ("long", None),
    "benchmarks/table_page.py": ("run", ""),
    "benchmarks/peers/compare_cpu.py": ("torch", None),
    "benchmarks/peers/hf_moe.py": ("torch", None),
    "benchmarks/peers/torch_moe.py": ("torch", None),
    "bench_ops [--device cpu]": ("long", None),
    "bench_ops --device meta": ("run", ""),
    "bench_ops --device ref": ("run", "--seconds 0.001"),
    "bench_ops --device cuda": ("run", ""),
    "bench_gemm": ("long", None),
    "bench_import": ("long", None),
    "bench_checkpoint": ("long", None),
}
