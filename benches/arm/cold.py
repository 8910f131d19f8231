"""How much of a file a program reads when it is not in the page cache (Linux).

    python3 benches/arm/cold.py gpt2.pgpt pocketgpt generate -m gpt2.pgpt -n 1 "Once upon a time"
"""

import ctypes
import mmap
import os
import resource
import subprocess
import sys


def resident_bytes(file: int, size: int) -> int:
    """Bytes of the file that are in the page cache, by mincore(2)."""
    mapping = mmap.mmap(file, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    first = ctypes.c_char.from_buffer(mapping)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(ctypes.addressof(first))
    if libc.mincore(address, ctypes.c_size_t(size), pages) != 0:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    path, *command = sys.argv[1:]
    file = os.open(path, os.O_RDONLY)
    size = os.fstat(file).st_size
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    left = resident_bytes(file, size)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"in the page cache before: {left / 1e6:.1f} MB; after: {resident_bytes(file, size) / 1e6:.1f} of {size / 1e6:.1f} MB")
    print(f"read from the disk: {usage.ru_inblock * 512 / 1e6:.1f} MB; page faults that waited for it: {usage.ru_majflt}")


if __name__ == "__main__":
    main()
