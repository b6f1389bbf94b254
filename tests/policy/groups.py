"""The table: groups of policies, data and documents that are judged."""

import itertools
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILT_IN = [ROOT / "host/rules/default_invoke.rego", ROOT / "host/rules/default_load.rego"]
ADA, EVE = "spiffe://crank.local/agent/ada", "spiffe://crank.local/agent/eve"
MAIL = "spiffe://crank.local/worker/email-classifier"
OTHER = "spiffe://elsewhere.org/worker/x"

# The seed's own example.
MANIFESTS = {
    "workers": {
        MAIL: {
            "worker_id": "worker-email-classifier",
            "required_capabilities": ["convert:email_to_text", "classify:spam_detection"],
            "owner": "ml-team",
            "deployed_at": "2025-11-16T10:00:00Z",
        }
    }
}


def call(capability, caller, origin=None, nested=False, version="1.0.0", depth=None, required=(), **more):
    verb, name = capability.split(":")
    return {
        "caller": caller,
        "origin": origin if nested else caller,
        "nested": nested,
        "depth": depth if depth is not None else int(nested),
        "capability": {"verb": verb, "name": name, "version": version, **more},
        "worker": {
            "id": "worker", "spiffe_id": None, "file": "worker", "place": "local",
            "required_capabilities": list(required),
        },
    }


def worker(required, spiffe_id=MAIL):
    return {
        "worker": {"id": "worker", "file": "worker"},
        "capabilities": [
            {"verb": "classify", "name": "email_category", "version": "2.0.0",
             "spiffe_id": spiffe_id, "required_capabilities": required}
        ],
        "required_capabilities": required,
        "imports": ["crank:worker/peers@0.1.0"],
    }


def manifests():
    for name, caller, nested in itertools.product(
        ["convert:email_to_text", "classify:spam_detection", "greet:hello_world"],
        [None, ADA, MAIL, OTHER],
        [False, True],
    ):
        yield "data.crank.invoke", call(name, caller, ADA, nested)
    two = ["convert:email_to_text", "classify:spam_detection"]
    for required in [
        [], two, two + ["wasi:keyvalue/store"], two + ["greet:hello_world"],
        ["convert:email_to_text@^1"], ["wasi:keyvalue/store[mail:ro]"], ["greet:hello_world@^1"],
    ]:
        for spiffe_id in [MAIL, ADA, None]:
            yield "data.crank.load", worker(required, spiffe_id)


def deputy():
    for name, caller, origin, nested in itertools.product(
        ["store:zettel", "greet:hello_world", "count:words"], [None, ADA, EVE, MAIL], [None, ADA, EVE], [False, True]
    ):
        if nested or origin is None:
            yield "data.crank.invoke", call(name, caller, origin, nested)


def features():
    for name, caller in itertools.product(
        ["read:zettel", "store:zettel", "purge:all", "mirror:it", "count:Words", "count:zz_"], [None, ADA, EVE, MAIL, OTHER, "not an id"]
    ):
        yield "data.crank.invoke", call(name, caller, version="1.2.3")
    # `semver.compare` is not held against rego-cpp 1.5.2, which takes 2.0.0 for older than 1.2.0; nor is
    # `concat` of one text, which it returns in quotes.
    for version in ["0.9.0", "1.2.0", "2.0.0", "no version"]:
        yield "data.crank.invoke", call("read:zettel", ADA, version=version)
    for depth in range(6):
        yield "data.crank.invoke", call("read:zettel", ADA, ADA, depth > 0, "1.2.3", depth)
    for required in [["read:zettel"], ["purge:all"], ["store:zettel", "read:zettel"], ["fly:away"], ["store:zettel"] * 3]:
        yield "data.crank.invoke", call("read:zettel", ADA, version="1.2.3", required=required)
    # Not "ab" and null: `some x in` either is undefined there, and with us an error, which denies.
    for tags in [[], ["a"], ["a", "b"], ["b", "c", "a"], {"x": "a", "y": "b"}]:
        yield "data.crank.invoke", call("read:zettel", ADA, version="1.2.3", tags=tags)


FEATURES = {
    "roles": {ADA: ["admin", "reader"], EVE: ["reader"], MAIL: ["writer"]},
    "powers": {"admin": ["high", "middle"], "writer": ["middle"], "reader": ["low"]},
    "risks": {"purge": 9, "store": 5, "read": 1},
    "kinds": {"read": "verb", "store": "verb", "purge": "verb", "zettel": "noun"},
    "costs": {"store:zettel": 4, "purge:all": 11, "read:zettel": 0.5},
    "limits": {"depth": 4},
}

EXAMPLE = ROOT / "docs/examples/policies"

# Name, policies, data or its directory, packages that have an `allow`, cases.
GROUPS = [
    ("built-in, no data", BUILT_IN, {}, [], manifests),
    ("built-in, the seed's manifests", BUILT_IN, {"worker_manifests": MANIFESTS}, [], manifests),
    ("the confused deputy", BUILT_IN + [EXAMPLE / "deputy.rego"], EXAMPLE / "data", [], deputy),
    ("the language", BUILT_IN + [HERE / "features.rego"], FEATURES, ["data.crank.invoke"], features),
]
