"""The inner loops of the matrix products of one token, cut from the program, and their cycles.

llvm-mca knows the pipelines of Cortex-A53, of A72, and of Neoverse N1, which is the server's A76.
It assumes that every load hits the first cache, so what it gives is the time of the arithmetic:
what remains is bound by memory if that is less than the time that the bytes take.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

OBJDUMP = "aarch64-linux-gnu-objdump"
# Bytes of weights and of block scales that a group of 32 inputs has in 16 rows.
GROUP_BYTES = {"q4": 256 + 16, "q8": 512 + 16}
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*([^/]*)")


@dataclass(frozen=True)
class Loop:
    """Instructions of one round, from the target of the branch on."""

    lines: list[str]

    def count(self, pattern: str) -> int:
        return sum(1 for line in self.lines if re.match(pattern, line))


def functions(program: Path) -> dict[str, list[tuple[int, str, str]]]:
    """Address, mnemonic and operands of the instructions of the kernels."""
    text = subprocess.run(
        [OBJDUMP, "-d", "--no-show-raw-insn", "-C", program],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found, current = {}, None
    for line in text.splitlines():
        if line.endswith(">:"):
            name = line.split("<", 1)[1][:-2]
            wanted = "::aarch64::" in name and "::matmul_q" in name
            current = found.setdefault(name, []) if wanted else None
        elif current is not None and (match := INSTRUCTION.match(line)):
            current.append((int(match[1], 16), match[2], match[3].strip()))
    return found


def innermost_loops(code: list[tuple[int, str, str]]) -> list[Loop]:
    """A loop is what lies between a branch backwards and its target, if no other loop does."""
    index = {address: i for i, (address, _, _) in enumerate(code)}
    spans = []
    for i, (_, name, operands) in enumerate(code):
        target = re.search(r"\b([0-9a-f]+) <", operands)
        if name.startswith(("b.", "cb", "tb")) and target:
            start = index.get(int(target[1], 16))
            if start is not None and start <= i:
                spans.append((start, i))
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    return [Loop([assembly(*code[i]) for i in range(a, b + 1)]) for a, b in inner]


def assembly(_: int, name: str, operands: str) -> str:
    """As an assembler takes it: branches go to a label, where they went does not matter."""
    operands = re.sub(r"\b[0-9a-f]+ <[^>]*>", "0", operands)
    return f"{name} {operands}".strip()


def one_token(loops: list[Loop], kind: str, isa: str) -> Loop:
    """The loop over groups for one token and sixteen rows."""
    products = {"neon": r"[su]mlal2? |[su]mull2? ", "dotprod": r"sdot "}[isa]
    number = {"neon": 64, "dotprod": 32}[isa]
    for loop in loops:
        whole = kind == "q8" or loop.count(r"ushr .*\.16b.*#4|ushr .*#4") >= 16
        if loop.count(products) == number and loop.count("fmla ") == 4 and whole:
            return loop
    counts = [(len(x.lines), x.count(products), x.count("fmla ")) for x in loops]
    raise SystemExit(f"error: {isa} {kind}: no such loop; lines, products, fmla: {counts}")


def cycles(loop: Loop, cpu: str, mca: str) -> float:
    """Cycles of a round, over 200 of them."""
    source = "\n".join(loop.lines) + "\n"
    source = re.sub(r"\b0\b(?=\n)", "0", source)
    out = subprocess.run(
        [mca, "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod", "-iterations=200"],
        input=source, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return int(re.search(r"Total Cycles:\s+(\d+)", out)[1]) / 200


def table(program: Path, mca: str) -> list[dict]:
    """Every kernel on every CPU that has it."""
    found = functions(program)
    rows = []
    for isa, cpus in {
        "neon": ["cortex-a53", "cortex-a72", "neoverse-n1"],
        "dotprod": ["neoverse-n1"],
    }.items():
        for kind, size in GROUP_BYTES.items():
            [name] = [n for n in found if f"::{isa}::matmul_{kind}" in n]
            loop = one_token(innermost_loops(found[name]), kind, isa)
            for cpu in cpus:
                per_byte = cycles(loop, cpu, mca) / size
                rows.append({
                    "isa": isa, "encoding": kind, "cpu": cpu, "instructions": len(loop.lines),
                    "cycles": round(per_byte * size, 1), "cycles_per_byte": round(per_byte, 3),
                })  # fmt: skip
    return rows


if __name__ == "__main__":
    import json
    import sys

    for row in table(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "llvm-mca-19"):
        print(json.dumps(row))
