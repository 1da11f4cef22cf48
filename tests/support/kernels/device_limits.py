"""What GPUs of each compute capability take: the one table that launches are compared with.

Source: NVIDIA, CUDA Programming Guide for CUDA 13, 5.1 Compute Capabilities, tables of technical
specifications (docs.nvidia.com/cuda/cuda-programming-guide, 05-appendices/compute-capabilities);
registers are handed out to warps in units of 256 (Occupancy Calculator).
"""

from typing import NamedTuple

WARP = 32
THREADS_PER_BLOCK = 1024
BLOCKS_OF_A_GRID = (1 << 31) - 1  # along x
REGISTERS_PER_THREAD = 255
REGISTERS_PER_SM = 64 * 1024  # and per block
SHARED_PER_BLOCK = 48 * 1024  # without asking for more
_REGISTER_UNIT = 256


class DeviceLimits(NamedTuple):
    """Limits that differ between architectures.

    Attributes:
        threads_per_sm: Resident threads of a multiprocessor.
        blocks_per_sm: Resident blocks of a multiprocessor.
        shared_per_sm: Bytes of shared memory of a multiprocessor.
    """

    threads_per_sm: int
    blocks_per_sm: int
    shared_per_sm: int


LIMITS = {
    75: DeviceLimits(1024, 16, 64 * 1024),
    80: DeviceLimits(2048, 32, 164 * 1024),
    86: DeviceLimits(1536, 16, 100 * 1024),
    89: DeviceLimits(1536, 24, 100 * 1024),
    90: DeviceLimits(2048, 32, 228 * 1024),
    100: DeviceLimits(2048, 32, 228 * 1024),
    120: DeviceLimits(1536, 24, 100 * 1024),
}


def compute_occupancy(architecture: int, block: int, registers: int, shared: int = 0) -> float:
    """Share of a multiprocessor's threads that are resident, in [0, 1].

    Args:
        architecture: A key of `LIMITS`.
        block: Threads of a block, whole warps.
        registers: Of a thread.
        shared: Bytes of shared memory of a block.
    """
    limits = LIMITS[architecture]
    of_warp = -(-registers * WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    warps = block // WARP
    blocks = min(
        limits.blocks_per_sm,
        limits.threads_per_sm // block,
        REGISTERS_PER_SM // of_warp // warps,
        limits.shared_per_sm // shared if shared else limits.blocks_per_sm,
    )
    return blocks * block / limits.threads_per_sm
