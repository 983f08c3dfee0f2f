"""What kind of processor this is, as far as it decides what a model's arithmetic gives.

The runtime picks its kernels by these features; two processors of one kind run the same ones, so
that results are equal bit by bit. Pure; imports no runtime.
"""

from __future__ import annotations

from syncline.edge.providers import Host

_KERNELS = frozenset({
    "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni",
    "avx_vnni_int8", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "sme", "sme2",
})  # fmt: skip


def machine_kind(host: Host | None = None) -> str:
    """Instruction set and the features that kernels are chosen by, such as `x86_64 avx avx2 fma`.

    Args:
        host: None = this machine.
    """
    given = host or Host.this()
    return " ".join((given.machine, *sorted(given.flags & _KERNELS)))
