#!/usr/bin/env python3
"""grid.py ROWS [--format text|json]: what a planner's picks were worth, out of the launches that grid_run.py keeps.

A line of ROWS is one launch of one case, {"case": "2x8 1 8 0 4M", "launch": 0, "rows": [...]}, its rows as `topomoe bench
alltoall --format json` prints them. A variant's time is the median over launches; MAD is that of the best variant. Where
the best takes less than 20 ms a case is listed, not counted: the machine, not the network, is what takes long there.
"""
import argparse
import json
import statistics
import sys

COUNTED_US = 20e3  # of the best
WIN = 1.10         # times that the best of any other (split, transport) pair takes, in a win


def read(path):
    """case -> variant -> {"times": [us], "row": the last row}; variants are (algorithm, chunks)."""
    cases = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            launch = json.loads(line)
            case = cases.setdefault(launch["case"], {})
            for row in launch["rows"]:
                variant = case.setdefault((row["algorithm"], row["chunks"]), {"times": []})
                variant["times"].append(row["time_us_median"])
                variant["row"] = row
    return cases


def mad(values):
    middle = statistics.median(values)
    return statistics.median([abs(v - middle) for v in values])


def judge(variants):
    """One case. `pick` and what follows from it are None where nothing was predicted."""
    time = {v: statistics.median(x["times"]) for v, x in variants.items()}
    best = min(time, key=time.get)
    of_pair = {}
    for (algorithm, _), t in time.items():
        of_pair[algorithm] = min(t, of_pair.get(algorithm, t))
    others = [t for algorithm, t in of_pair.items() if algorithm != best[0]]
    # A pair that was not even timed lost by more: `--variants auto` leaves out those whose raw bound is 1.5 predicted bests.
    wins = not others or min(others) > WIN * time[best]
    spread = mad(variants[best]["times"]) / time[best]
    picked = [v for v, x in variants.items() if x["row"].get("picked")]
    out = {"time": time, "best": best, "mad": spread, "wins": wins, "launches": min(len(x["times"]) for x in variants.values()),
           "counted": time[best] >= COUNTED_US, "pick": picked[0] if picked else None, "regret": None, "within": None}
    if picked:
        out["regret"] = time[picked[0]] / time[best] - 1
        out["within"] = out["regret"] <= max(0.03, 2 * spread)
    out["errors"] = [x["row"]["predicted_us"] / time[v] - 1 for v, x in variants.items() if x["row"].get("predicted_us")]
    return out


def verdict(judged):
    """All cases: the figures of done-when 4. Values are None where nothing was predicted."""
    counted = [j for j in judged.values() if j["counted"]]
    picked = [j for j in counted if j["pick"]]
    errors = [abs(e) for j in counted for e in j["errors"]]
    of_picks = [abs(j["predicted"] / j["time"][j["pick"]] - 1) for j in picked if j.get("predicted")]
    wins = {}
    for j in judged.values():
        if j["wins"]:
            both = wins.setdefault(j["best"][0], [0, 0])
            both[0] += 1
            both[1] += j["counted"]
    return {
        "cases": len(judged), "counted": len(counted),
        "within": sum(j["within"] for j in picked) / len(picked) if picked else None,
        "regret_mean": statistics.mean(j["regret"] for j in picked) if picked else None,
        "regret_max": max(j["regret"] for j in picked) if picked else None,
        "error_median": statistics.median(errors) if errors else None,
        "error_of_picks_median": statistics.median(of_picks) if of_picks else None,
        "wins": dict(sorted(wins.items(), key=lambda w: -w[1][0])),
        "pairs_with_5_wins": sum(1 for both in wins.values() if both[0] >= 5),
    }


def judge_all(cases):
    judged = {}
    for name, variants in cases.items():
        j = judged[name] = judge(variants)
        if j["pick"]:
            j["predicted"] = variants[j["pick"]]["row"].get("predicted_us")
        row = variants[j["pick"] or j["best"]]["row"]
        j["bytes"], j["messages"] = row["inter_bytes"], row.get("inter_messages")
    return judged


def words(variant):
    return f"{variant[0]} n={variant[1]}" if variant else "-"


def line(name, j):
    regret = "-" if j["regret"] is None else f"{100 * j['regret']:.1f}%"
    error = "-" if not j.get("predicted") else f"{100 * (j['predicted'] / j['time'][j['pick']] - 1):+.1f}%"
    return (f"{name:26} {words(j['best']):27} {j['time'][j['best']] / 1e3:9.2f} {100 * j['mad']:5.1f}% {'win' if j['wins'] else '':4}"
            f"{words(j['pick']):27} {regret:>7} {'' if j['within'] is not False else 'no':3} {error:>8}")


def table(judged):
    head = f"{'case':26} {'best':27} {'ms':>9} {'MAD':>6} {'':4}{'pick':27} {'regret':>7} {'':3} {'predicted':>8}"
    print(f"# {head}\n# shape, TP, top-k, skew, bytes a rank [a row's]; win: by > 10% over any other pair; no: outside max(3%, 2 MAD)")
    for name, j in judged.items():
        if j["counted"]:
            print("  " + line(name, j))
    short = {n: j for n, j in judged.items() if not j["counted"]}
    if short:
        print("# under 20 ms, not counted; payload and messages between hosts")
    for name, j in short.items():
        messages = "-" if j["messages"] is None else f"{j['messages']:.0f}"
        print(f"  {line(name, j)}  {j['bytes']:.0f} B {messages} messages")


def percent(value):
    return "-" if value is None else f"{100 * value:.1f}%"


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("rows")
    options.add_argument("--format", choices=["text", "json"], default="text")
    o = options.parse_args()
    judged = judge_all(read(o.rows))
    if not judged:
        sys.exit(f"grid.py: {o.rows}: no launches")
    v = verdict(judged)
    if o.format == "json":
        cases = {n: {"best": list(j["best"]), "pick": j["pick"] and list(j["pick"]), "best_us": j["time"][j["best"]], "mad": j["mad"],
                     "regret": j["regret"], "within": j["within"], "counted": j["counted"], "wins": j["wins"]}
                 for n, j in judged.items()}
        print(json.dumps({"verdict": v, "cases": cases}, indent=1))
        return
    table(judged)
    launches = min(j["launches"] for j in judged.values())
    print(f"\n{v['cases']} cases, {launches} launches or more each; {v['counted']} of 20 ms or more")
    print(f"pick within max(3%, 2 MAD) of the best: {percent(v['within'])} (wanted 90%)")
    print(f"regret: mean {percent(v['regret_mean'])} (wanted 3%), max {percent(v['regret_max'])} (wanted 15%)")
    print(f"|predicted / measured - 1|: median {percent(v['error_median'])} over all variants, {percent(v['error_of_picks_median'])}"
          " over picks (wanted 8%)")
    print(f"wins by more than 10%, all and of 20 ms or more: " + ", ".join(f"{p} {a} ({c})" for p, (a, c) in v["wins"].items())
          + f"; pairs with 5 or more: {v['pairs_with_5_wins']} (wanted 4)")


if __name__ == "__main__":
    main()
