"""`make bench`: run the cases on Apache Kafka and on kbroker in turn, print the table, write JSON and markdown.

Wants a quiet machine: nothing else running, no other broker. Everything listens on loopback; data lives under
.cache/bench and is removed.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import common, machine, report
from bench.brokers import COMPILED, ROOT, alive, make_certificate
from bench.cases import BY_ROUNDS, FRESH, KBROKER_ONLY, LOADED
from bench.common import Bench
from tools import kafka

# Others' share of the machine from which on the figures are not to be trusted.
QUIET = 0.10

FULL = {"seconds": 3.0, "rounds": 3, "warm_kafka": 25.0, "warm_kbroker": 3.0}
QUICK = {"seconds": 1.0, "rounds": 1, "warm_kafka": 8.0, "warm_kbroker": 1.0}


def options(argv: list[str]) -> argparse.Namespace:
    names = [*FRESH, *LOADED]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default=",".join(names), metavar="CASES", help=f"of {', '.join(names)}")
    parser.add_argument("--peer", choices=("both", "kbroker", "kafka"), default="both")
    parser.add_argument(
        "--quick", action="store_true", help="one short round of each: to see that all of it runs"
    )
    parser.add_argument("--seconds", type=float, help="length of a round (3)")
    parser.add_argument("--rounds", type=int, help="rounds of each case; the median counts (3)")
    parser.add_argument("--kbroker-python", default=sys.executable, metavar="PATH")
    parser.add_argument(
        "--source",
        action="store_true",
        help="kbroker interpreted from the sources, not what `make compiled` made",
    )
    parser.add_argument("--no-touch", action="store_true", help="do not touch all free memory first")
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".cache" / "bench", help="where brokers keep their data"
    )
    parser.add_argument("--out", type=Path, help="where the results go (the folder of --data)")
    asked = parser.parse_args(argv)
    for name, value in (QUICK if asked.quick else FULL).items():
        if getattr(asked, name, None) is None:
            setattr(asked, name, value)
    asked.only = asked.only.split(",")
    if unknown := set(asked.only) - set(names):
        parser.error(f"unknown cases {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return asked


def main(argv: list[str]) -> int:
    asked = options(argv)
    if sys.platform != "linux":
        print("the bench reads /proc: it runs on Linux only", file=sys.stderr)
        return 1
    code = ROOT if asked.source else COMPILED
    if not code.exists():
        print(
            "kbroker is not compiled: make compiled, or --source for the sources as they are", file=sys.stderr
        )
        return 1
    names = ["kafka", "kbroker"] if asked.peer == "both" else [asked.peer]
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # through every `finally`

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    asked.data.mkdir(parents=True, exist_ok=True)
    machine.allow_many_files(2 * common.CONNECTIONS + 1_000)
    if "kafka" in names:
        kafka.install()
    facts = machine.facts()
    facts["kbroker's Python"] = machine.python_facts(asked.kbroker_python)
    facts["kbroker"] = "from its sources" if asked.source else "compiled"
    facts["rounds"] = f"{asked.rounds} of {asked.seconds:g} s, medians"
    if not asked.no_touch:
        say("touching all free memory")
        facts["memory touched first"] = f"{machine.touch_memory() / 1e9:.1f} GB"
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=asked.data))
    try:
        bench = Bench(
            seconds=asked.seconds,
            rounds=asked.rounds,
            folder=folder,
            kbroker_python=asked.kbroker_python,
            kbroker_code=code,
            certificate=make_certificate(folder),
            say=say,
        )
        failed = run(bench, names, asked)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for problem in failed:
        bench.notes.append(f"not measured: {problem}")
    write(bench, facts, asked.out or asked.data)
    return 1 if failed else 0


def run(bench: Bench, names: list[str], asked: argparse.Namespace) -> list[str]:
    """All cases, each on one broker and right after it on the other, loads round by round: a machine that is slower for a
    while is so for both. One that fails is reported and does not stop the others."""
    failed: list[str] = []

    def attempt(name: str, case: str, measure: Callable[[], None]) -> None:
        bench.say(f"{name}: {case}")
        try:
            measure()
        except Exception as error:  # noqa: BLE001 -- reported, and the exit status says so
            failed.append(f"{name}: {case}: {type(error).__name__}: {error}")
            bench.say(f"  FAILED: {error}")

    for case, fresh in FRESH.items():
        for name in names:
            if case in asked.only and (name == "kbroker" or case not in KBROKER_ONLY):
                attempt(name, case, partial(fresh, bench, name))
    wanted = [case for case in LOADED if case in asked.only]
    if wanted:
        attempt(" and ".join(names), "loads", partial(run_loaded, bench, names, wanted, asked, attempt))
    return failed


def run_loaded(
    bench: Bench,
    names: list[str],
    wanted: list[str],
    asked: argparse.Namespace,
    attempt: Callable[[str, str, Callable[[], None]], None],
) -> None:
    """Both brokers stand all the time, the one that is not measured has nothing to do."""
    tls = any(case.startswith("tls") for case in wanted)
    with contextlib.ExitStack() as until_then:
        peers = {}
        for name in names:
            peers[name] = until_then.enter_context(common.running(bench.new_peer(name, tls=tls)))
            seconds = asked.warm_kafka if name == "kafka" else asked.warm_kbroker
            bench.say(f"{name}: warming, {seconds:g} s")
            common.warm(peers[name], seconds, tls=tls)
        others = machine.Others(*(peer.pid for peer in peers.values()))
        for case in wanted:
            for _ in range(bench.rounds if case in BY_ROUNDS else 1):
                for name, peer in peers.items():
                    attempt(name, case, partial(LOADED[case], bench, peer))
        if all(alive(peer) for peer in peers.values()):
            noise = f"other processes took {others.share():.0%} of the machine during the loads"
            bench.notes.append(noise + (": NOT A QUIET MACHINE" if others.share() > QUIET else ""))


def write(bench: Bench, facts: dict[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = time.strftime("bench-%Y%m%d-%H%M%S", time.gmtime())
    as_json, as_markdown = folder / f"{stem}.json", folder / f"{stem}.md"
    as_json.write_text(report.as_json(bench.values, bench.client_busy, facts))
    as_markdown.write_text(report.markdown(bench.values, bench.client_busy, facts, bench.notes))
    print()
    print(report.plain(bench.values, bench.client_busy))
    for note in bench.notes:
        print(note)
    print(f"\n{as_markdown}\n{as_json}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
