# Which worker may be loaded, where you say nothing else: one that declares no peer beyond what its
# manifest lists (policies/data/worker_manifests.json), as soon as there are manifests. Interfaces are
# granted in crank.toml, [workers."FILE-STEM"].
#
# Files of yours add to the same package: names that begin with `manifest` are taken.
package crank.load

import rego.v1

manifests := data.worker_manifests.workers

# `namespace:package/interface`
manifest_interface(entry) if contains(entry, "/")

manifest_lists(capability, entry) if entry in manifests[capability.spiffe_id].required_capabilities

# A manifest that names no version lists every one.
manifest_lists(capability, entry) if {
	split(entry, "@")[0] in manifests[capability.spiffe_id].required_capabilities
}

deny contains reason if {
	manifests
	some capability in input.capabilities
	some entry in capability.required_capabilities
	not manifest_interface(entry)
	not manifest_lists(capability, entry)
	reason := sprintf("manifest: %s:%s declares %s, which no manifest of its identity lists", [
		capability.verb,
		capability.name,
		entry,
	])
}
