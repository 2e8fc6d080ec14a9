"""A step of training, forward and backward through a whole network, and the memory that it takes.

    python bench/step.py [--net speech|image|stage] [--batch N] [--dtype float32|bfloat16] [--threads T]
                         [--blas scipy|mkl] [--against torch|one-thread] [--repetitions N] [--quick]

In bfloat16 parameters are held in it, as those of a replica are whose masters are on the shards; `rounding`: the same
step from float32 parameters, rounded once a step; `MKL's products`: the same step by MKL, where ours are in use and it
is installed.

Rivals take turns, of several steps each (about half a second): in training a step follows a step, and finds in the
last cache what that one left. Figures are medians of the turns. `products`: the matrix products of the dense layers and
nothing else, on the same arrays. `--against torch` takes the best that PyTorch has for the type: float32, or for
bfloat16 the faster of autocast and a model held in bfloat16; all have the same parameters and minibatch, and their
losses must agree.
`--against one-thread`: the same step on one thread.
Peak bytes: the most resident memory during steps beyond that before the network was built, and what the network has
planned, beside the sum of parameters, gradients and activations.
The last line is JSON, with the facts of the machine.
"""

import argparse
import importlib.util
import json
import sys

import machine  # before NumPy: one BLAS thread
import numpy as np
from job import count
from networks import NETWORKS, Described, Step
from timing import Call, medians

from distbelief.errors import UserError
from distbelief.kernels import product, use_gemm16, use_kernels16, use_threads
from distbelief.nn import Dense
from distbelief.nn.arena import aligned
from distbelief.processor import mkl, prepare
from distbelief.processor.prepare import OURS

TURN = 0.5  # seconds

# Relative, of the losses of the same minibatch: sums of thousands of roundings.
AGREE = {"float32": 1e-4, "bfloat16": 5e-2}


def products(step: Step) -> Call:
    """The products that a step consists of, on arrays of the same sizes, parameters and gradient its own.

    Random numbers, as in a step: on ones a core that is short of power is faster. All arrays begin lines of the cache.
    """
    n, calls, random = step.batch.size, [], np.random.default_rng(0)
    for i, layer in enumerate(step.network.layers):
        assert isinstance(layer, Dense)
        w, dw = step.parameters[layer.w], step.gradient[layer.w]
        x, dx = (aligned(layer.inputs * n, np.float32).reshape(-1, n) for _ in range(2))
        y, dy = (aligned(layer.outputs * n, np.float32).reshape(-1, n) for _ in range(2))
        random.standard_normal(out=x, dtype=np.float32), random.standard_normal(out=dy, dtype=np.float32)
        calls += [(False, False, w, x, y), (False, True, dy, x, dw)]
        if i:
            calls.append((True, False, w, dy, dx))

    def run() -> None:
        for arguments in calls:
            product(*arguments)

    return run


def on_one_thread(step: Step, threads: int) -> Call:
    """The same step, its arrays and all."""

    def run() -> None:
        use_threads(1)
        step()
        use_threads(threads)

    return run


def by_mkl(described: Described, batch: int) -> Call:
    """The same step with MKL's products of bfloat16 in place of ours, in a network planned for them."""
    gemm16 = mkl.address("cblas_gemm_bf16bf16f32")
    use_kernels16(), use_gemm16(gemm16)
    step = Step(described, batch, "bfloat16", "bfloat16")
    use_kernels16(*OURS), use_gemm16()

    def run() -> None:
        use_kernels16(), use_gemm16(gemm16)
        step()
        use_kernels16(*OURS), use_gemm16()

    return run


def resident(key: str) -> int:
    """Bytes of this process's memory: VmRSS, now; VmHWM, the most since `forget_peak`."""
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def measured_memory(described: Described, batch: int, dtype: str) -> tuple[Step, dict]:
    """The step, with what it takes from the system while it runs."""
    Step(NETWORKS["speech"][1](), 1, "float32")()  # BLAS has its buffers before we count
    before = resident("VmRSS")
    step = Step(described, batch, dtype, "bfloat16" if dtype == "bfloat16" else None)
    forget_peak()  # of initialisation, which draws a tensor in float64
    step(), step()
    taken = resident("VmHWM") - before
    memory = step.network.memory
    least = memory.parameters + memory.gradients + memory.activations
    found = {"bytes_planned": memory.planned, "bytes_taken": taken, "bytes_least": least}
    return step, found | {"planned_of_least": memory.planned / least, "taken_of_least": taken / least}


def race(step: Step, described: Described, arguments: argparse.Namespace, repetitions: int) -> dict:
    rivals: dict[str, Call] = {"distbelief": step}
    if arguments.dtype == "bfloat16":
        rivals["rounding"] = Step(described, step.batch.size, arguments.dtype)
        if use_kernels16(*OURS) and mkl.library():
            rivals["MKL's products"] = by_mkl(described, step.batch.size)
    dense = arguments.dtype == "float32" and all(isinstance(layer, Dense) for layer in step.network.layers)
    if dense:
        rivals["products"] = products(step)
    theirs: dict[str, Call] = {}
    if arguments.against == "one-thread":
        theirs = {"one thread": on_one_thread(step, arguments.threads)}
    elif arguments.against == "torch":
        import torch_networks

        theirs = torch_networks.steps(step, arguments.dtype, arguments.threads)
        loss = step()
        for name, rival in theirs.items():
            other = rival()
            if abs(other - loss) > AGREE[arguments.dtype] * abs(loss):
                raise RuntimeError(f"the loss of {name} is {other}, ours {loss}")
    seconds = medians(rivals | theirs, repetitions, TURN if not arguments.quick else 0.0)
    gflop = 3e-9 * step.network.flops(step.batch.size)
    print(f"{'':<16} {'ms':>9} {'GFLOP/s':>9} {'of ours':>9}")
    for name, time in seconds.items():
        print(f"{name:<16} {1e3 * time:>9.2f} {gflop / time:>9.1f} {time / seconds['distbelief']:>9.2f}")
    found = {"ours_ms": 1e3 * seconds["distbelief"], "gflops": gflop / seconds["distbelief"]}
    if arguments.dtype == "bfloat16":
        found["rounding_ms"] = 1e3 * seconds["rounding"]
        found["mkl_ms"] = 1e3 * seconds["MKL's products"] if "MKL's products" in seconds else None
    if dense:
        found["products_ms"] = 1e3 * seconds["products"]
        found["share_not_products"] = 1 - seconds["products"] / seconds["distbelief"]
        print(f"not products     {100 * found['share_not_products']:.1f} % of the step")
    if theirs:
        best = min(theirs, key=lambda name: seconds[name])
        found |= {"reference": best, "reference_ms": 1e3 * seconds[best]}
        found["ratio"] = seconds[best] / seconds["distbelief"]
        found["references_ms"] = {name: 1e3 * seconds[name] for name in theirs}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of a step of training through a whole network.")
    parser.add_argument("--net", choices=list(NETWORKS), default="speech")
    parser.add_argument("--batch", type=count, default=None, help="examples (default: 128, images 32)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=count, default=1)
    parser.add_argument("--blas", choices=["scipy", "mkl"], default="scipy")
    parser.add_argument("--against", choices=["torch", "one-thread"], help="race with it (`make bench-env` has torch)")
    parser.add_argument("--repetitions", type=count, default=9, help="turns of each rival (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a small network and few repetitions: seconds")
    arguments = parser.parse_args()
    if arguments.against == "torch" and importlib.util.find_spec("torch") is None:
        sys.exit(f"{parser.prog}: --against torch: not installed, expected it as by `make bench-env`")
    batch = arguments.batch or (128 if arguments.net == "speech" else 32)
    try:
        if words := prepare(arguments.threads, arguments.blas, arguments.dtype):
            print(words)
    except UserError as error:
        sys.exit(f"{parser.prog}: {error}")

    described = NETWORKS[arguments.net][arguments.quick]()
    step, memory = measured_memory(described, batch, arguments.dtype)
    print(f"{described.words}, {step.network.layout.size} parameters, batch {batch}, {arguments.dtype}")
    found = race(step, described, arguments, 3 if arguments.quick else arguments.repetitions)
    print(
        f"memory           {memory['bytes_taken'] / 1e6:.1f} MB taken, {memory['bytes_planned'] / 1e6:.1f} MB planned, "
        f"{memory['bytes_least'] / 1e6:.1f} MB of parameters, gradients and activations"
    )
    told = {"bench": "step"} | vars(arguments) | {"batch": batch, "parameters": step.network.layout.size}
    print(json.dumps(told | found | memory | {"machine": machine.facts()}))


if __name__ == "__main__":
    main()
