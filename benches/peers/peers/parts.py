"""What each part of the comparison measures."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import cpu, scaling
from .agreement import PocketgptAgreement, WorkerAgreement, pocketgpt_logits, sample
from .cold import ColdLlama, ColdPocketgpt
from .environment import Environment
from .memory import PocketgptMemory, WorkerMemory
from .models import Models
from .options import Options
from .rounds import Comparison
from .subjects import Pocketgpt, Process, Speeds, Subject, Worker

FLASH = "--flash-attention"


@dataclass
class Workshop:
    """Makes subjects and puts them into comparisons."""

    options: Options
    environment: Environment
    models: Models
    pocketgpt: Path
    quantize: Path

    # Subjects

    def ours(self, encoding: str, threads: int, work: Speeds, *options: str) -> Pocketgpt:
        """In huge pages, since peers copy most of their weights as well."""
        name = " ".join(["pocketgpt", encoding, *options]).replace("--isa ", "")
        file = self.models.pgpt(encoding)
        return Pocketgpt(name, self.pocketgpt, file, threads, work, "--huge-pages", *options)

    def process(self, module: str, file: Path, threads: int, *options: str, **variables: str) -> Process:
        arguments = [str(file), "--threads", str(threads), *options]
        log = self.options.folder / "workers.log"
        return Process(self.environment.python, module, *arguments, log=log, environment=variables)

    def llama(
        self, kind: str, threads: int, work: Speeds, *options: str, label: str = "", **variables: str
    ) -> Worker:
        process = self.process("llama", self.models.gguf(kind.lower()), threads, *options, **variables)
        return Worker(f"llama.cpp {kind}{label}", process, work)

    def llamas(
        self, kind: str, threads: int, work: Speeds, label: str = "", **variables: str
    ) -> list[Subject]:
        """Neither way of computing attention is always the faster one."""
        return [
            self.llama(kind, threads, work, label=label, **variables),
            self.llama(kind, threads, work, FLASH, label=f"{label} flash", **variables),
        ]

    def onnxruntime(self, kind: str, threads: int, work: Speeds) -> Worker:
        process = self.process("onnx", self.models.onnx(kind), threads)
        return Worker(f"ONNX Runtime {kind}", process, work)

    def ctranslate2(self, threads: int, work: Speeds) -> Worker:
        # Left alone it takes AVX2 for what is not a matrix product, on any CPU but Intel's.
        variables = {"CT2_FORCE_CPU_ISA": "AVX512"} if cpu.has("avx512bw") else {}
        file = self.models.ctranslate2("int8")
        process = self.process("ctranslate2", file, threads, **variables)
        return Worker("CTranslate2 int8", process, work)

    def torch(self, kind: str, threads: int, work: Speeds) -> Worker:
        process = self.process("torch", self.models.checkpoint, threads, "--type", kind)
        return Worker(f"torch {kind}", process, work)

    # Parts

    def comparisons(self) -> Iterator[Comparison]:
        parts = {
            "agreement": self.agreement,
            "decode": self.decode,
            "prefill": self.prefill,
            "avx2": self.avx2,
            "busy": self.busy,
            "cold": self.cold,
            "memory": self.memory,
            "others": self.others,
            "scaling": self.scaling,
        }
        for part in self.options.parts:
            if part in ("agreement", "busy", "memory", "scaling"):
                yield from parts[part]()
            else:
                for threads in self.options.threads:
                    yield from parts[part](threads)

    def agreement(self) -> Iterator[Comparison]:
        tokens = sample(self.models.vocab_size)
        reference = pocketgpt_logits(self.pocketgpt, self.models.pgpt("f32"), tokens)
        none = Speeds()
        kinds = ("F32", "Q8_0", "Q4_0", "Q4_K_M")
        peers = [self.llama(kind, 1, none, FLASH, label=" flash") for kind in kinds]
        peers += [self.onnxruntime(kind, 1, none) for kind in ("f32", "int8", "int4")]
        peers += [self.ctranslate2(1, none)]
        peers += [self.torch(kind, 1, none) for kind in ("float32", "bfloat16", "int8")]
        subjects: list[Subject] = []
        for encoding in ("f32", "q8", "q4"):
            name, file = f"pocketgpt {encoding}", self.models.pgpt(encoding)
            subject = PocketgptAgreement(name, self.pocketgpt, file, tokens, reference)
            subjects.append(subject)
        subjects += [WorkerAgreement(peer.name, peer.process, tokens, reference) for peer in peers]
        yield Comparison("agreement", "agreement of logits", subjects, unit="", rounds=1)

    def decode(self, threads: int) -> Iterator[Comparison]:
        work = Speeds(self.options.depths, self.options.tokens)
        shallow = Speeds(self.options.depths[:1], self.options.tokens)
        # llama.cpp with a cache of q8_0, which our 4 bits have by default.
        kv_q8 = (FLASH, "--kv", "q8_0")
        yield Comparison(
            "decode",
            f"decode, 4 bits, {count(threads)}",
            [
                self.ours("q4", threads, work),
                *self.llamas("Q4_0", threads, work),
                self.llama("Q4_0", threads, work, *kv_q8, label=" flash kv q8_0"),
                *self.llamas("Q4_K_M", threads, work),
                self.onnxruntime("int4", threads, work),
            ],
        )
        # Calibrated, this file still loses less than the peers' (see benches/peers/loss).
        yield Comparison(
            "decode",
            f"decode, 4 bits and the head as well, {count(threads)}",
            [
                self.ours("q4 head q4", threads, shallow),
                *self.llamas("Q4_0", threads, shallow),
                *self.llamas("Q4_K_M", threads, shallow),
            ],
        )
        yield Comparison(
            "decode",
            f"decode, 8 bits, {count(threads)}",
            [
                self.ours("q8", threads, work),
                *self.llamas("Q8_0", threads, work),
                self.onnxruntime("int8", threads, work),
            ],
        )
        yield Comparison(
            "decode",
            f"decode, f32, {count(threads)}",
            [self.ours("f32", threads, shallow), *self.llamas("F32", threads, shallow)],
        )
        yield Comparison(
            "decode",
            f"decode, 4 bits and f32, {count(threads)}",
            [self.ours("q4", threads, shallow), self.ours("f32", threads, shallow)],
        )

    def prefill(self, threads: int) -> Iterator[Comparison]:
        work = Speeds(prefill=512)
        yield Comparison(
            "prefill",
            f"prefill, 4 bits, {count(threads)}",
            [
                self.ours("q4", threads, work),
                self.onnxruntime("int8", threads, work),
                self.ctranslate2(threads, work),
                *self.llamas("Q4_0", threads, work),
                *self.llamas("Q4_K_M", threads, work),
            ],
        )
        yield Comparison(
            "prefill",
            f"prefill, 8 bits, {count(threads)}",
            [
                self.ours("q8", threads, work),
                self.onnxruntime("int8", threads, work),
                self.ctranslate2(threads, work),
                *self.llamas("Q8_0", threads, work),
            ],
        )

    def avx2(self, threads: int) -> Iterator[Comparison]:
        path = {"PYTHONPATH": str(self.environment.llama_avx2)}
        work = Speeds(self.options.depths[:1], self.options.tokens, 512)
        for bits, encoding, kinds in ((4, "q4", ("Q4_0", "Q4_K_M")), (8, "q8", ("Q8_0",))):
            peers = [
                peer for kind in kinds for peer in self.llamas(kind, threads, work, " avx2", **path)
            ]
            ours = self.ours(encoding, threads, work, "--isa", "avx2")
            yield Comparison("avx2", f"AVX2, {bits} bits, {count(threads)}", [ours, *peers])

    def busy(self) -> Iterator[Comparison]:
        cpus = os.cpu_count()
        threads = max(self.options.threads)
        work = Speeds(self.options.depths[:1], self.options.tokens)
        # OpenMP's threads spin where they wait, which is the worst of ways on busy CPUs.
        patient = {"OMP_WAIT_POLICY": "PASSIVE"}
        yield Comparison(
            "busy",
            f"decode, 4 bits, {count(threads)}, every CPU busy",
            [
                self.ours("q4", threads, work),
                *self.llamas("Q4_0", threads, work),
                self.llama("Q4_0", threads, work, FLASH, label=" flash passive", **patient),
            ],
            busy=cpus,
        )

    def cold(self, threads: int) -> Iterator[Comparison]:
        def llama(label: str, *options: str) -> ColdLlama:
            file = self.models.gguf("q4_0")
            process = self.process("llama_cold", file, threads, *options)
            return ColdLlama(f"llama.cpp Q4_0{label}", process, self.models.vocab_size)

        file = self.models.pgpt("q4")
        yield Comparison(
            "cold",
            f"cold start, 4 bits, {count(threads)}",
            [
                ColdPocketgpt("pocketgpt q4", self.pocketgpt, file, threads),
                llama(""),
                llama(" as mapped", "--no-repack"),
            ],
            unit="ms",
            more_is_better=False,
            warm_up=1,
        )

    def memory(self) -> Iterator[Comparison]:
        threads = min(self.options.threads)
        none = Speeds()
        subjects: list[Subject] = [
            PocketgptMemory(f"pocketgpt {encoding}", self.pocketgpt, self.models.pgpt(encoding), threads)
            for encoding in ("q4", "q8", "f32")
        ]
        for kind in ("Q4_0", "Q8_0", "F32"):
            for label, options in (("", ()), (" as mapped", ("--no-repack",))):
                label = f" flash{label}"
                worker = self.llama(kind, threads, none, FLASH, *options, label=label)
                subjects.append(WorkerMemory(worker.name, worker.process))
        name = f"memory, {count(threads)}"
        yield Comparison("memory", name, subjects, unit="MB", more_is_better=False, rounds=3)

    def others(self, threads: int) -> Iterator[Comparison]:
        work = Speeds(self.options.depths[:2], self.options.tokens, 512)
        yield Comparison(
            "others",
            f"other runtimes, {count(threads)}",
            [
                self.ours("q4", threads, work),
                self.ours("q8", threads, work),
                self.ours("f32", threads, work),
                *(self.onnxruntime(kind, threads, work) for kind in ("int4", "int8", "f32")),
                self.ctranslate2(threads, work),
                *(self.torch(kind, threads, work) for kind in ("int8", "bfloat16", "float32")),
            ],
            rounds=3,
        )

    def scaling(self) -> Iterator[Comparison]:
        options = self.options
        yield from scaling.comparisons(
            self.pocketgpt, self.quantize, options.scratch, options.threads, options.tokens
        )


def count(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"
