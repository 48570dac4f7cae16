#!/usr/bin/env python3
"""table.py monta|baselines|dedup|packets FILE ... --launches N [--format text|json]: what bench.sh has measured.

A FILE has the JSON arrays of all launches of one case, one after the other. Times are medians over launches. A ratio of
two variants is taken inside each launch, where both met the same machine, and then its median over launches.
"""
import argparse
import json
import math
import pathlib
import statistics
import sys

median = statistics.median


def arrays_of(text):
    """JSON arrays that follow one another."""
    decoder, at, out = json.JSONDecoder(), 0, []
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        out.append(value)
    return out


class Case:
    """Variants are "sliced flat n=4"; all of them are in each launch."""

    def __init__(self, name, launches):
        self.name = name
        self.rows = [{f"{r['algorithm']} n={r['chunks']}": r for r in rows} for rows in launches]
        self.variants = list(self.rows[0])
        if any(list(rows) != self.variants for rows in self.rows):
            sys.exit(f"table.py: {name}: a launch ran other variants than the first")
        self.times = {v: [rows[v]["time_us_median"] for rows in self.rows] for v in self.variants}

    def time(self, variant):
        return median(self.times[variant])

    def ratio(self, variant, other):
        """Paired."""
        return median(a / b for a, b in zip(self.times[variant], self.times[other]))

    def over_bound(self, variant):
        return median(t / rows[variant]["bound_us"] for t, rows in zip(self.times[variant], self.rows))

    def print(self):
        print(f"{self.name + ' (us)':28} {'median':>12} {'min':>12} {'max':>12} {'bound':>12} {'/bound':>8}")
        for v in self.variants:
            bound = median(rows[v]["bound_us"] for rows in self.rows)
            print(f"{v:28} {self.time(v):12.0f} {min(self.times[v]):12.0f} {max(self.times[v]):12.0f} {bound:12.0f}"
                  f" {self.over_bound(v):8.3f}")

    def json(self):
        return [dict(self.rows[-1][v], case=self.name, time_us_median=self.time(v), time_us_min=min(self.times[v]),
                     time_us_max=max(self.times[v])) for v in self.variants]


def verdict(good, text):
    print(("ok: " if good else "NOT MET: ") + text)
    return good


def monta(cases):
    case = cases[0]
    chunked = [v for v in case.variants if v.startswith("sliced")]
    best = min(chunked, key=case.time)
    verdict(case.over_bound("replicated flat n=1") <= 1.03, f"replicated {case.over_bound('replicated flat n=1'):.3f} of its bound"
            " (wanted 1.03)")
    verdict(case.over_bound(best) <= 1.05, f"{best} {case.over_bound(best):.3f} of its bound (wanted 1.05)")
    print(f"replicated / {best} = {case.ratio('replicated flat n=1', best):.2f} (ideal: TP);"
          f" overlap of chunks: sliced flat n=1 / {best} = {case.ratio('sliced flat n=1', best):.3f}")
    picked = [v for v in chunked if case.rows[0][v].get("picked")]
    if picked:
        off = case.ratio(picked[0], best) - 1
        verdict(off <= 0.03, f"the planner takes {picked[0]}: {100 * off:.1f}% from the best of the sweep, {best} (wanted 3%)")
        row = case.rows[0][picked[0]]
        print(f"predicted {row['predicted_us']:.0f} us, measured {case.time(picked[0]):.0f} us")


OTHERS = {"alltoallv": "MPI_Alltoallv", "deepspeed": "DeepSpeed", "pr5626": "PR 5626", "monta": "MoNTA", "tutel2dh": "Tutel 2DH"}


def baselines(cases):
    beaten, all_met = {}, True
    print(f"\n{'case':24} {'ours':26} {'best of theirs':16} {'ours / theirs':>13}  theirs / ours, each")
    for case in cases:
        others = [v for v in case.variants if v.split(" ")[0] in OTHERS]
        mine = [v for v in case.variants if v not in others]
        # What the planner takes where it was asked; else the fastest, known afterwards.
        ours = next((v for v in mine if case.rows[0][v].get("picked")), None) or min(mine, key=case.time)
        per_launch = [case.times[ours][i] / min(case.times[v][i] for v in others) for i in range(len(case.rows))]
        each = {OTHERS[v.split(" ")[0]]: case.ratio(v, ours) for v in others}
        best = min(others, key=case.time)
        ratio = median(per_launch)
        all_met &= ratio <= 1.02
        for name, times in each.items():
            beaten[name] = max(times, beaten.get(name, 0))
        print(f"{case.name:24} {ours:26} {OTHERS[best.split(' ')[0]]:16} {ratio:13.3f}  "
              + ", ".join(f"{n} {t:.3f}" for n, t in each.items()))
    verdict(all_met, "paired median within 1.02 of the best of theirs in all cases")
    verdict(all(t > 1.02 for t in beaten.values()), "each is beaten somewhere: "
            + ", ".join(f"{n} by {t:.2f}x" for n, t in beaten.items()))


def hypergeometric_none(experts, picked, of):
    """Chance that none of `of` experts is among the picked."""
    return math.comb(experts - of, picked) / math.comb(experts, picked)


def dedup(cases, nodes=4, experts=64, top_k=8, row_bytes=4096):
    case, here = cases[0], experts // nodes
    hit = 1 - hypergeometric_none(experts, top_k, here)
    both = 1 - 2 * (1 - hit) + hypergeometric_none(experts, top_k, 2 * here)
    wanted = (nodes - 1) * hit  # d (N-1)/N with d = N hit
    variance = (nodes - 1) * hit * (1 - hit) + (nodes - 1) * (nodes - 2) * (both - hit * hit)
    good, v = True, case.variants[0]
    for i, rows in enumerate(case.rows):
        tokens = rows[v]["bytes_per_rank"] / (top_k * row_bytes) * rows[v]["ranks"]
        pairs = rows[v]["inter_bytes"] / row_bytes
        sigmas = (pairs / tokens - wanted) / math.sqrt(variance / tokens)
        good &= pairs == int(pairs) and abs(sigmas) <= 3
        print(f"draw {i + 1}: {pairs:.0f} (token, remote node) pairs crossed, {pairs / tokens:.4f} a token, expected {wanted:.4f}:"
              f" {sigmas:+.2f} sigma")
    verdict(good, "payload between hosts is whole pairs, within 3 sigma of d (N-1)/N")
    best = min(case.variants, key=case.time)
    verdict(case.over_bound(best) <= 1.08, f"{best}: time {case.over_bound(best):.3f} of what these bytes need (wanted 1.08)")


def packets(cases):
    case = cases[0]
    ratio = case.ratio("sliced flat n=1", "sliced two_level n=1")
    verdict(ratio >= 3, f"two_level is {ratio:.2f} times as fast as flat (wanted 3); messages between hosts "
            f"{case.rows[0]['sliced two_level n=1']['inter_messages']:.0f} and {case.rows[0]['sliced flat n=1']['inter_messages']:.0f}")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("what", choices=["monta", "baselines", "dedup", "packets"])
    options.add_argument("files", nargs="+", type=pathlib.Path)
    options.add_argument("--launches", type=int, required=True)
    options.add_argument("--format", choices=["text", "json"], default="text")
    o = options.parse_args()
    cases = []
    for file in o.files:
        if file.suffix == ".json":
            continue  # of the planner
        launches = arrays_of(file.read_text(encoding="utf-8"))
        if len(launches) != o.launches:
            sys.exit(f"table.py: {file.name}: {len(launches)} launches gave rows, not {o.launches}")
        cases.append(Case(file.name, launches))
    if o.format == "json":
        print("[\n" + ",\n".join(json.dumps(row) for case in cases for row in case.json()) + "\n]")
        return
    for case in cases:
        case.print()
    {"monta": monta, "baselines": baselines, "dedup": dedup, "packets": packets}[o.what](cases)


if __name__ == "__main__":
    main()
