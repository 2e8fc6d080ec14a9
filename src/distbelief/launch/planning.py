"""What a cut of a network would look like: `distbelief plan`."""

from types import SimpleNamespace

from distbelief.config import load
from distbelief.errors import UserError
from distbelief.nn import LOSSES, build
from distbelief.nn.bfloat16 import wide
from distbelief.nn.layers import Layer
from distbelief.partition import Cut, Peers, predict


def plan(
    path: str, settings: list[str], partitions: int | None, gflops: float, gbits: float, latency: float
) -> list[str]:
    """The lines of `distbelief plan`. Needs no data. Local.

    `partitions`: None for as many as the configuration says; `gflops`: 10^9 operations per second of a rank; `gbits`:
    10^9 bits per second of its link; `latency`: of a message, in seconds. Raises UserError for a configuration that is
    wrong, and for so many partitions that some would be left empty, naming the layer.
    """
    config = load(path, settings)
    network, n = config.network, config.data.batch
    partitions = partitions or network.partitions
    if min(partitions, gflops, gbits) <= 0 or latency < 0:
        raise UserError("plan: expected at least one partition, rates above 0 and a latency of 0 or more")
    layers = build(network.layers, network.inputs, network.loss)
    loss = LOSSES[network.loss]()
    whole = Cut(layers, partitions, n, network.dtype, loss)
    cut = whole.plan
    # What crosses is float32 where layers compute in bfloat16.
    dtype = wide(network.dtype)

    def step(ranks: int) -> float:
        seconds = _rate(gflops * 1e9)
        return predict(layers, ranks, n, seconds, loss, latency=latency, bandwidth=gbits * 1e9 / 8, dtype=dtype)

    one, many = step(1), step(partitions)
    parts = [whole.model(Peers(SimpleNamespace(rank=p), range(partitions), 0.0)) for p in range(partitions)]
    return [
        f"{parts[0].whole.size:,} parameters in {len(layers)} layers, minibatches of {n} examples, "
        f"{partitions} partitions",
        "",
        *_table(
            ["partition", "parameters", "multiply-adds", "memory", "sends", "receives"],
            [
                [
                    str(p),
                    f"{part.layout.size:,}",
                    f"{cut.multiply_adds(p) * n:,.0f}",
                    _bytes(part.memory.planned),
                    _bytes(sum(cut.traffic(i, source=p) for i in range(len(layers))) * n * dtype.itemsize),
                    _bytes(sum(cut.traffic(i, dest=p) for i in range(len(layers))) * n * dtype.itemsize),
                ]
                for p, part in enumerate(parts)
            ],
        ),
        "",
        *_table(
            ["layer", "rows", "rows of a partition", "crosses above it"],
            [
                [
                    layer.name,
                    str(layer.shape[0]),
                    _range([band.size for band in cut.bands[i]]),
                    _bytes(cut.traffic(i) * n * dtype.itemsize),
                ]
                for i, layer in enumerate(layers)
            ],
        ),
        "",
        "multiply-adds: of a forward pass; backwards twice as many. memory: of a step, with parameters and gradient.",
        "sends, receives, crosses: forwards; as much comes back as gradients.",
        "",
        f"predicted step: {_seconds(one)} on one rank, {_seconds(many)} on {partitions}: {one / many:.2f} times as "
        f"fast ({gflops:g} GFLOP/s a rank, {gbits:g} Gbit/s, {latency * 1e6:g} us)",
    ]


def _rate(flops: float):
    def seconds(layer: Layer, position: int, n: int) -> float:
        return layer.flops(n) / flops

    return seconds


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Columns of one width, numbers to the right."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in [heads, *rows]]


def _range(sizes: list[int]) -> str:
    return str(min(sizes)) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.2f} GB"


def _seconds(time: float) -> str:
    return f"{time:.3g} s" if time >= 1 else f"{time * 1e3:.3g} ms"
