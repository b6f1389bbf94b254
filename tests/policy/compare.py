"""Judges the table of `groups.py` by another Rego engine, and records what it decides.

    python3 -m venv target/rego && target/rego/bin/pip install regopy==1.5.2
    target/rego/bin/python tests/policy/compare.py            # compares with the record
    target/rego/bin/python tests/policy/compare.py --write    # records

The engine is rego-cpp (Microsoft), as PyPI has it: regopy. `cargo test policy` holds our own engine to the
record, so that it needs no registry.
"""

import json
import pathlib
import sys

from groups import GROUPS, ROOT
from regopy import Interpreter

GOLDEN = ROOT / "tests/golden/policy.json"


def judge(engine, package, document, allows):
    engine.set_input(document)
    answer = json.loads(str(engine.query(f"x := {package}.deny")))
    reasons = sorted(answer["bindings"]["x"])
    if package in allows:
        answer = json.loads(str(engine.query(f"x := {package}.allow")))
        if answer["bindings"]["x"] is not True:
            reasons.append("allow: no rule allows it")
    return reasons


def record():
    groups = []
    for name, policies, data, allows, cases in GROUPS:
        if isinstance(data, pathlib.Path):
            data = {file.stem: json.loads(file.read_text()) for file in sorted(data.glob("*.json"))}
        engine = Interpreter()
        for policy in policies:
            engine.add_module(policy.name, policy.read_text())
        engine.add_data(data)
        judged = [
            {"package": package, "input": document, "reasons": judge(engine, package, document, allows)}
            for package, document in cases()
        ]
        own = [str(policy.relative_to(ROOT)) for policy in policies if not policy.name.startswith("default_")]
        groups.append({"name": name, "policies": own, "data": data, "cases": judged})
    return {"engine": "regopy 1.5.2 (PyPI; rego-cpp)", "groups": groups}


def text(recorded):
    # A case a line.
    lines = ['{ "engine": %s, "groups": [' % json.dumps(recorded["engine"])]
    for at, group in enumerate(recorded["groups"]):
        head = {key: group[key] for key in ("name", "policies", "data")}
        lines.append(json.dumps(head)[:-1] + ', "cases": [')
        lines.append(",\n".join(json.dumps(case) for case in group["cases"]))
        lines.append("]}" + ("," if at + 1 < len(recorded["groups"]) else ""))
    return "\n".join(lines) + "\n]}\n"


def main():
    recorded = record()
    count = sum(len(group["cases"]) for group in recorded["groups"])
    denied = sum(bool(case["reasons"]) for group in recorded["groups"] for case in group["cases"])
    if "--write" in sys.argv:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text(recorded))
    elif json.loads(GOLDEN.read_text()) != recorded:
        sys.exit("the record differs: see what changed, then --write")
    print(f"{count} decisions, {denied} of them refusals")


main()
