"""Race the library against its peers: `python benchmarks/run.py [SUITE ...] [--out FILE]`.

One JSON document per line on stdout (and in FILE). Everything runs on one thread, peers included. Suites: roofline,
planning, discounted, stepping, online, offline, complexity, golf, density_ratio; default all. rlberry, the peer of
online, is raced if the environment variable THEORYRL_RLBERRY_PYTHON names an interpreter that has it.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

SUITES = ("roofline", "planning", "discounted", "stepping", "online", "offline", "complexity", "golf", "density_ratio")


def single_threaded():
    """Settings that must be in place before numpy loads."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    # A processor type forced on OpenBLAS would handicap the peers that rest on it.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    single_threaded()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    lines = []
    for suite in options.suites or SUITES:
        for record in importlib.import_module(f"benchmarks.{suite}").measure():
            lines.append(json.dumps({"suite": suite} | record))
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
