# Who may call what, where you say nothing else: anybody, but for workers, which call what their
# manifests list (policies/data/worker_manifests.json), as soon as there are manifests.
#
# Files of yours add to the same package: names that begin with `manifest` are taken.
package crank.invoke

import rego.v1

manifests := data.worker_manifests.workers

manifest_capability := sprintf("%s:%s", [input.capability.verb, input.capability.name])

manifest_caller := input.caller if {
	input.caller != null
} else := "a worker without an identity"

manifest_holder if input.nested

manifest_holder if manifests[input.caller]

manifest_lists if manifest_capability in manifests[input.caller].required_capabilities

# The version that a worker asks for is held to its own declaration, and that to the manifest.
manifest_lists if {
	input.nested
	some entry in manifests[input.caller].required_capabilities
	split(entry, "@")[0] == manifest_capability
}

deny contains reason if {
	manifests
	manifest_holder
	not manifest_lists
	reason := sprintf("manifest: %s may not call %s, which its manifest does not list", [manifest_caller, manifest_capability])
}
