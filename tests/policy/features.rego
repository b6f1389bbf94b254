# Much of the language, to hold one engine against another.
package crank.invoke

import rego.v1

default allow := false

allow if count(deny) == 0

id := input.caller

segments := split(trim_prefix(id, "spiffe://"), "/")

domain := segments[0]

kind := segments[1] if count(segments) > 1

roles contains role if some role in object.get(data.roles, id, [])

roles contains "guest" if not data.roles[id]

risk := data.risks[input.capability.verb]

level := "high" if {
	risk >= 7
} else := "middle" if {
	risk >= 4
} else := "low"

powers := {power |
	some role in roles
	some power in data.powers[role]
}

by_kind[form] contains name if some name, form in data.kinds

matches(pattern, text) if glob.match(pattern, ["/"], text)

deny contains "domain: another authority" if domain != "crank.local"

deny contains sprintf("risk: %s takes a power that %d roles lack", [level, count(roles)]) if {
	level in {"high", "middle"}
	not level in powers
}

deny contains "version: too old" if to_number(split(input.capability.version, ".")[0]) < 1

deny contains "pattern: workers stay in their own part" if {
	kind == "worker"
	not matches("spiffe://crank.local/worker/*", id)
}

deny contains "name: not of the form" if {
	not regex.match(`^[a-z][a-z0-9_]*$`, input.capability.name)
}

# `startswith` of null is undefined.
deny contains "scheme: no SPIFFE id" if not startswith(input.caller, "spiffe://")

deny contains "depth: too deep" if input.depth > object.get(data.limits, "depth", 3)

deny contains "every: a requirement is unknown" if {
	not every_known
}

every_known if {
	every entry in input.worker.required_capabilities {
		split(entry, ":")[0] in by_kind.verb
	}
}

deny contains "sum: costs too much" if {
	costs := [cost | some entry in input.worker.required_capabilities; cost := data.costs[entry]]
	sum(costs) > 10
}

deny contains "tail: a hash that ends wrongly" if {
	endswith(lower(base64.encode(input.capability.name)), "zz==")
}

deny contains "union: both" if {
	both := {"a", "b"} & {x | some x in input.capability.tags}
	count(both) == 2
}

deny contains "with: the other caller would be free" if {
	input.capability.verb == "mirror"
	free with input.caller as "spiffe://crank.local/agent/ada"
}

free if "admin" in roles
