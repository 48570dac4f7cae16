#!/usr/bin/env python3
"""grid_run.py --topomoe PROGRAM --keep DIR [--cases FILE] [--launches 5] [--quick]: the launches that grid.py judges.

For each shape of cluster: cluster.json, `topomoe profile` once, then every case of it so many times, each launch with all
variants interleaved (`bench alltoall --variants auto`). DIR gets <shape>.cluster.json, <shape>.calibration.json and
rows.jsonl, a line a launch: what is there is not made again, so that a run which was stopped goes on. Without predictions
(--blind) all variants that apply are timed.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
# Timed rounds of a launch take about this long together, at least one: short operations are repeated more.
LAUNCH_S = 1.0
MOST_ROUNDS = 5
# A variant that takes longer is not warmed up: connections and pages are 1% of it.
LONG_S = 1.0


def read_cases(path):
    """[(name, hosts, ranks, chunks, most, seconds, options of up.sh, [case as a list of words])], in order."""
    shapes = {}
    for number, text in enumerate(pathlib.Path(path).read_text(encoding="utf-8").splitlines(), 1):
        words = text.split("#")[0].split()
        if not words:
            continue
        if words[0] == "shape" and len(words) >= 7:
            shapes[words[1]] = (words[1], int(words[2]), int(words[3]), *words[4:7], words[7:], [])
        elif words[0] == "case" and len(words) in (6, 7) and words[1] in shapes:
            shapes[words[1]][-1].append(words[1:])
        else:
            sys.exit(f"{path}:{number}: neither a shape nor a case of one: {text}")
    return list(shapes.values())


def launches_in(rows):
    """case -> what its launches said."""
    done = {}
    if rows.exists():
        for line in rows.read_text(encoding="utf-8").splitlines():
            launch = json.loads(line)
            done.setdefault(launch["case"], []).append(launch["rows"])
    return done


def output_of(command, limit_s):
    done = subprocess.run(["timeout", "--kill-after=5", str(limit_s), *map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr[-2000:]}{done.stdout[-500:]}")
    return done.stdout


class Shape:
    """Inside the cluster of one shape."""

    def __init__(self, o, shape):
        self.o = o
        self.name, self.hosts, self.ranks, self.chunks, self.most, self.seconds, self.options, self.cases = shape
        self.mpirun = [HERE / "mpirun.sh", self.ranks, "--", o.topomoe]
        self.cluster, self.calibration = (o.keep / f"{self.name}.{what}.json" for what in ("cluster", "calibration"))

    def prepare(self):
        if self.o.blind:
            return
        if not self.cluster.exists():
            told = [w for i, w in enumerate(self.options)
                    if not {"--mpu", "--burst"} & set(self.options[max(0, i - 1):i + 1])]  # profile measures those
            self.cluster.write_text(output_of([HERE / "cluster_json.sh", "--hosts", self.hosts, "--ranks", self.ranks, *told], 10),
                                    encoding="utf-8")
        if not self.calibration.exists():
            begin = time.monotonic()
            made = self.calibration.with_suffix(".part")
            print(output_of([*self.mpirun, "profile", "--backend", "mpi", "--cluster", self.cluster, "--most", self.most,
                             "--seconds", self.o.profile_seconds or self.seconds, "-o", made], 300), file=sys.stderr)
            made.rename(self.calibration)
            print(f"{self.name}: profiled in {time.monotonic() - begin:.0f} s", file=sys.stderr)

    def launch(self, case, before):
        _, tp, top_k, skew, size, *row_bytes = case
        rounds, warm = 1, 1
        if before:
            times = [r["time_us_median"] / 1e6 for r in before]
            rounds = max(1, min(MOST_ROUNDS, int(LAUNCH_S / sum(times))))
            warm = int(max(times) < LONG_S)
        command = [*self.mpirun, "bench", "alltoall", "--backend", "mpi", "--tp", tp, "--top-k", top_k, "--skew", skew,
                   "--experts", 64, "--bytes", size, "--chunks", self.chunks, "--repeat", rounds, "--warmup", warm, "--format", "json"]
        if row_bytes:
            command += ["--token-bytes", row_bytes[0]]
        command += ["--variants", "all" if self.o.blind else "auto"]
        if not self.o.blind:
            command += ["--cluster", self.cluster, "--calibration", self.calibration]
        return json.loads(output_of(command, 120))

    def run(self):
        self.prepare()
        rows_file = self.o.keep / "rows.jsonl"
        done = launches_in(rows_file)
        for case in self.cases:
            name = " ".join(case)
            said = done.get(name, [])
            begin = time.monotonic()
            for number in range(len(said), self.o.launches):
                said.append(self.launch(case, said[-1] if said else None))
                with rows_file.open("a", encoding="utf-8") as out:
                    out.write(json.dumps({"case": name, "launch": number, "rows": said[-1]}) + "\n")
            if time.monotonic() - begin > 1:
                best = min(said[-1], key=lambda r: r["time_us_median"])
                print(f"{name}: {best['algorithm']} n={best['chunks']} {best['time_us_median'] / 1e3:.1f} ms; {len(said[-1])} variants,"
                      f" {time.monotonic() - begin:.0f} s", file=sys.stderr)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--topomoe", required=True, type=os.path.abspath)
    options.add_argument("--keep", required=True, type=lambda p: pathlib.Path(p).resolve())
    options.add_argument("--cases", default=HERE / "grid_cases.txt", type=os.path.abspath)
    options.add_argument("--launches", type=int, default=5)
    options.add_argument("--profile-seconds", type=int, help="in place of what the cases say")
    options.add_argument("--quick", action="store_true", help="two launches of each shape's first three cases")
    options.add_argument("--blind", action="store_true")
    options.add_argument("--inside", help=argparse.SUPPRESS)
    o = options.parse_args()
    if o.quick:
        o.launches = min(o.launches, 2)
    o.keep.mkdir(parents=True, exist_ok=True)
    for shape in read_cases(o.cases):
        if o.quick:
            shape = (*shape[:-1], shape[-1][:3])
        if o.inside is None:
            enough = {name for name, said in launches_in(o.keep / "rows.jsonl").items() if len(said) >= o.launches}
            if all(" ".join(case) in enough for case in shape[-1]):
                continue
            subprocess.run([HERE / "up.sh", "--hosts", str(shape[1]), *shape[-2], "--", sys.executable, __file__, "--inside", shape[0],
                            *sys.argv[1:]], check=True)
        elif o.inside == shape[0]:
            Shape(o, shape).run()


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, subprocess.CalledProcessError) as e:
        sys.exit(f"grid_run.py: {e}")
