package crank.invoke_test

import data.crank.invoke
import rego.v1

ada := "spiffe://crank.local/agent/ada"

eve := "spiffe://crank.local/agent/eve"

relay := "spiffe://crank.local/worker/relay"

store := {"verb": "store", "name": "zettel", "version": "1.0.0"}

direct(caller) := {"caller": caller, "origin": caller, "nested": false, "capability": store}

through(worker, origin) := {"caller": worker, "origin": origin, "nested": true, "capability": store}

test_ada_may if {
	count(invoke.deny) == 0 with input as direct(ada)
}

test_eve_may_not if {
	some reason in invoke.deny with input as direct(eve)
	startswith(reason, "guarded:")
}

test_nobody_may_not if {
	count(invoke.deny) == 1 with input as direct(null)
}

test_a_worker_may_for_ada if {
	count(invoke.deny) == 0 with input as through(relay, ada)
}

test_a_worker_may_not_for_eve if {
	some reason in invoke.deny with input as through(relay, eve)
	startswith(reason, "deputy:")
}

test_what_is_not_guarded_is_free if {
	count(invoke.deny) == 0 with input as {
		"caller": eve, "origin": eve, "nested": false,
		"capability": {"verb": "count", "name": "words", "version": "1.0.0"},
	}
}
