"""What the cycles of a loop mean on a board: how many cores it takes until memory is the limit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Board:
    name: str
    # llvm-mca's model of its cores, and the set of kernels that they run.
    cpu: str
    isa: str
    ghz: float
    # What four cores read together, in GB/s.
    bandwidth: float


BOARDS = [
    Board("Raspberry Pi Zero 2 W", "cortex-a53", "neon", 1.0, 2.2),
    Board("Raspberry Pi 3", "cortex-a53", "neon", 1.2, 2.3),
    Board("Raspberry Pi 3 B+", "cortex-a53", "neon", 1.4, 2.3),
    Board("Raspberry Pi 4", "cortex-a72", "neon", 1.5, 4.0),
    Board("Raspberry Pi 4, 1.8 GHz", "cortex-a72", "neon", 1.8, 4.0),
    Board("Raspberry Pi 5", "neoverse-n1", "dotprod", 2.4, 15.0),
]


def loop_table(loops: list[dict]) -> str:
    lines = [
        "| kernels | weights | CPU of llvm-mca | instructions | cycles | cycles per byte |",
        "|---|---|---|---:|---:|---:|",
    ]
    for row in loops:
        lines.append(
            f"| {row['isa']} | {row['encoding']} | {row['cpu']} | {row['instructions']} "
            f"| {row['cycles']:.0f} | {row['cycles_per_byte']:.3f} |"
        )
    return "\n".join(lines)


def board_table(loops: list[dict]) -> str:
    cycles = {(x["isa"], x["encoding"], x["cpu"]): x["cycles_per_byte"] for x in loops}
    lines = [
        "| board | GB/s of its memory | q4: GB/s of one core | cores until memory is the limit "
        "| q8: GB/s of one core | cores |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for board in BOARDS:
        cells = []
        for encoding in ("q4", "q8"):
            core = board.ghz / cycles[board.isa, encoding, board.cpu]
            cores = next((n for n in range(1, 5) if n * core >= board.bandwidth), None)
            cells += [f"{core:.1f}", str(cores) if cores else "more than 4"]
        lines.append(f"| {board.name} | {board.bandwidth:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)
