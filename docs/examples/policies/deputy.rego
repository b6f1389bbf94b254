# Guards some capabilities (data/guarded.json), also against a confused deputy: a worker that anybody may
# call, and that may itself call what its callers may not.
package crank.invoke

import rego.v1

# Who may invoke this capability, if it is guarded.
guards := data.guarded[sprintf("%s:%s", [input.capability.verb, input.capability.name])]

deny contains "guarded: this caller is not among those who may" if {
	guards
	not input.nested
	not input.caller in guards
}

deny contains "deputy: whoever called first may not do this by another's hand" if {
	guards
	input.nested
	not input.origin in guards
}
