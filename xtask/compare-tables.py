"""Random tables through `pipeline`'s data_transform, and through pandas.

Called by `cargo xtask compare-tables` with the program, the number of tables and a seed. What pandas cannot say by itself
(nothing is a row's field that is missing; order of groups; which value counts as text) is in `plain` and `rows_of`.
"""

import json
import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

WORDS = ["", "a", "B", "b", "Zoë", "zoe", "日本", "\U0001f600", "ﬁ", "e\u0301", "é", "10", "9", "a b", "\U0010ffff"]
FUNCTIONS = ["sum", "average", "count", "count_distinct", "min", "max", "median", "first", "last", "unique"]
GONE = object()


def table(rng, rows):
    """Rows with two keys, numbers, text and a map; each of them may be null or missing."""
    def maybe(value):
        chance = rng.random()
        return GONE if chance < 0.08 else None if chance < 0.16 else value

    made = []
    for place in range(rows):
        number = rng.choice([rng.randint(-5, 5), rng.randint(-10**12, 10**12), rng.randint(-40, 40) / 4])
        row = {
            "id": place,
            "key": maybe(rng.randint(0, 4)),
            "word": maybe(rng.choice(WORDS)),
            "whole": maybe(rng.randint(-100, 100)),
            "number": maybe(number),
            "deep": maybe({"inner": maybe(rng.choice(WORDS)), "n": maybe(rng.randint(0, 3))}),
            "list": maybe([rng.randint(0, 9) for _ in range(rng.randint(0, 3))]),
        }
        if isinstance(row["deep"], dict):
            row["deep"] = {k: v for k, v in row["deep"].items() if v is not GONE}
        made.append({k: v for k, v in row.items() if v is not GONE})
    return made


def get(row, path):
    for part in path.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def frame(rows, *paths):
    """A column for each path, of objects, so that whole numbers stay whole; and one with the place of the row."""
    columns = {path: pd.Series([get(row, path) for row in rows], dtype=object) for path in paths}
    return pd.DataFrame({**columns, "@": range(len(rows))})


def numbers(column):
    return pd.to_numeric(column.dropna())


def plain(value):
    """What pandas gives, as JSON."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def rows_of(rows, found):
    return [rows[place] for place in found["@"]]


# Each gives the operations and what pandas says of them.


def filtered(rng, rows):
    limit, word = rng.randint(-60, 60), rng.choice(WORDS)
    f = frame(rows, "whole", "word", "deep.inner")
    whole = pd.to_numeric(f["whole"])
    op, mask = rng.choice([
        (f"whole > {limit}", whole > limit),
        (f"whole <= {limit}", whole <= limit),
        (f"whole between {limit} and {limit + 50}", whole.between(limit, limit + 50)),
        (f"word == {json.dumps(word, ensure_ascii=False)}", f["word"] == word),
        (f"deep.inner in {json.dumps(WORDS[3:9], ensure_ascii=False)}", f["deep.inner"].isin(WORDS[3:9])),
        (f"whole > {limit} and word exists and word is not none", (whole > limit) & f["word"].notna()),
    ])
    return [{"operation": "filter", "condition": op}], rows_of(rows, f[mask.astype(bool)])


def mapped(rng, rows):
    # Arithmetic with nothing is an error, so rows without it are left out first.
    f = frame(rows, "whole")
    f = f[f["whole"].notna()]
    factor = rng.randint(-9, 9)
    made = (pd.to_numeric(f["whole"]) * factor + 1).tolist()
    kept = [{**row, "whole": value} for row, value in zip(rows_of(rows, f), made)]
    operations = [{"operation": "filter", "field": "whole"},
                  {"operation": "map", "field": "whole", "expression": f"whole * {factor} + 1"}]
    return operations, kept


def selected(rng, rows):
    paths = rng.sample(["id", "key", "word", "number", "deep.inner", "deep.n"], 3)
    names = {f"new_{i}": path for i, path in enumerate(paths)}
    f = frame(rows, *paths).rename(columns={path: name for name, path in names.items()})
    made = [{k: plain(row[k]) for k in names if pd.notna(row[k])} for _, row in f.iterrows()]
    return [{"operation": "select", "fields": names}], made


def sorted_(rng, rows):
    paths = rng.sample(["key", "word", "whole", "number", "deep.inner"], rng.randint(1, 3))
    up = [rng.random() < 0.5 for _ in paths]
    f = frame(rows, *paths)
    # Stable, key by key from the last one, as text or as numbers.
    for path, ascending in reversed(list(zip(paths, up))):
        if path in ("key", "whole", "number"):
            f[path] = pd.to_numeric(f[path])
        f = f.sort_values(path, ascending=ascending, na_position="last", kind="stable")
    by = [{"field": path, "order": "asc" if ascending else "desc"} for path, ascending in zip(paths, up)]
    return [{"operation": "sort", "by": by}], rows_of(rows, f)


def unique(rng, rows):
    paths = rng.sample(["key", "word", "whole", "deep.n"], rng.randint(1, 2))
    f = frame(rows, *paths)
    return [{"operation": "unique", "fields": paths}], rows_of(rows, f[~f.duplicated(subset=paths)])


def limited(rng, rows):
    offset, count = rng.randint(0, len(rows) + 2), rng.randint(0, len(rows) + 2)
    f = frame(rows, "id").iloc[offset:offset + count]
    return [{"operation": "limit", "offset": offset, "count": count}], rows_of(rows, f)


def grouped(rng, rows):
    path = rng.choice(["key", "word", "deep.inner"])
    f = frame(rows, path)
    # The name of a group is text: nothing is `null`, a number is as it is written.
    f["name"] = f[path].map(lambda v: v if isinstance(v, str) else json.dumps(plain(v)))
    made = {name: rows_of(rows, part) for name, part in f.groupby("name", sort=False)}
    return [{"operation": "group_by", "field": path}], made


def summed(function, column):
    known = column.dropna()
    if function == "count":
        return len(known)
    if function == "count_distinct":
        return known.nunique()
    if function == "unique":
        return [plain(v) for v in known.drop_duplicates()]
    if function in ("first", "last"):
        return None if known.empty else plain(known.iloc[0 if function == "first" else -1])
    if known.empty:
        return 0 if function == "sum" else None
    if function in ("min", "max") and isinstance(known.iloc[0], str):
        return getattr(known, function)()
    made = getattr(numbers(known), {"average": "mean"}.get(function, function))()
    return plain(made)


def aggregated(rng, rows):
    function = rng.choice(FUNCTIONS)
    text = ["word", "deep.inner"] if function in ("count", "count_distinct", "min", "max", "first", "last", "unique") else []
    path = rng.choice(["whole", "number", "deep.n"] + text)
    f = frame(rows, path)
    return [{"operation": "aggregate", "function": function, "field": path}], summed(function, f[path])


def aggregated_by_group(rng, rows):
    operations, _ = aggregated(rng, rows)
    one = operations[0]
    by = rng.choice(["key", "word"])
    f = frame(rows, one["field"], by) if one["field"] != by else frame(rows, by)
    groups = f.groupby(by, sort=False, dropna=False)[one["field"]]
    made = [{by: plain(name), "made": summed(one["function"], part)} for name, part in groups]
    return [{**one, "group_by": by, "as": "made"}], made


def joined(rng, rows):
    right = table(rng, rng.randint(0, 12))
    how = rng.choice(["left", "inner"])
    left_key, right_key = rng.choice([("key", "key"), ("whole", "key"), ("word", "word"), ("deep.n", "key")])
    a = frame(rows, left_key).rename(columns={left_key: "k", "@": "left"})
    b = frame(right, right_key).rename(columns={right_key: "k", "@": "right"})
    # Pandas has nothing equal to nothing here; the language of expressions does not.
    f = a.merge(b[b["k"].notna()], how=how, on="k").sort_values(["left", "right"], kind="stable")
    made = []
    for _, pair in f.iterrows():
        row = rows[pair["left"]]
        made.append(row if pd.isna(pair["right"]) else {**row, "other": right[int(pair["right"])]})
    join = {"operation": "join", "join_type": how, "left_field": left_key, "join_key": right_key, "as": "other"}
    return [{**join, "right_source": "@right"}], made, right


def flattened(rng, rows):
    f = frame(rows, "list")
    kept = f[f["list"].map(lambda v: isinstance(v, list) and len(v) > 0).astype(bool)]
    return [{"operation": "flatten", "field": "list"}], [plain(v) for v in kept["list"].explode()]


KINDS = [filtered, mapped, selected, sorted_, unique, limited, grouped, aggregated, aggregated_by_group, joined, flattened]


def same(a, b):
    """Equal, and whole numbers stay whole; sums of fractions may differ in the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return not isinstance(a, (str, bool, type(None))) and not isinstance(b, (str, bool, type(None))) \
            and math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-9)
    return type(a) is type(b) and a == b


def main():
    program, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    wrong, done = 0, {kind.__name__: 0 for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, count, 40):
            # A run of the program has forty tables, each with every operation.
            variables, steps, wanted = {}, [], {}
            for number in range(first, min(first + 40, count)):
                rows = table(rng, rng.choice([0, 1, 2, 5, 20, 60]))
                variables[f"t{number}"] = rows
                for kind in KINDS:
                    name = f"{kind.__name__}{number}"
                    operations, made, *right = kind(rng, rows)
                    if right:
                        variables[f"r{number}"] = right[0]
                        operations[0]["right_source"] = f"state.r{number}"
                    wanted[name] = (operations, rows, right, made)
                    steps.append({"name": name, "type": "data_transform", "input_source": f"state.t{number}",
                                  "operations": operations, "output_field": "made", "continue_on_error": True})
                    done[kind.__name__] += 1
            Path(folder, "t.json").write_text(json.dumps(
                {"workflow": {"name": "tables", "variables": variables, "steps": steps}}), "utf-8")
            ended = subprocess.run([program, "run", "t.json", "--json", "--mock", "--quiet"], cwd=folder,
                                   capture_output=True, text=True, check=False)
            try:
                found = json.loads(ended.stdout)["steps"]
            except (ValueError, KeyError):
                print(f"the program gave no report: {ended.returncode}\n{ended.stdout[:2000]}{ended.stderr[:4000]}")
                return 1
            for name, (operations, rows, right, made) in wanted.items():
                step = found[name]
                value = (step["value"] or {}).get("made")
                if step["status"] == "ok" and same(value, json.loads(json.dumps(made))):
                    continue
                wrong += 1
                if wrong <= 5:
                    print(f"{name}: {json.dumps(operations, ensure_ascii=False)}\n  rows   {json.dumps(rows, ensure_ascii=False)[:1500]}"
                          f"\n  others {json.dumps(right, ensure_ascii=False)[:800]}"
                          f"\n  pandas {json.dumps(made, ensure_ascii=False)[:1500]}"
                          f"\n  ours   {json.dumps(value, ensure_ascii=False)[:1500]} {step['error'] or ''}")
    total = sum(done.values())
    print(f"{count} tables, seed {seed}: {total - wrong} of {total} results are those of pandas {pd.__version__}")
    print(", ".join(f"{name.strip('_')} {number}" for name, number in done.items()))
    return 1 if wrong else 0


sys.exit(main())
