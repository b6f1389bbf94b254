//! A worker as the policy sees it before it is loaded: the document of `crank.load`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::capability::Capability;

/// What a worker is, declares and imports.
pub(super) fn document<'a>(
    file: &Path,
    id: &str,
    capabilities: impl Iterator<Item = &'a Capability>,
    imports: &[String],
) -> Value {
    let mut all = BTreeSet::new();
    let capabilities: Vec<Value> = capabilities
        .map(|capability| {
            let required = capability.required_capabilities.iter().flatten();
            let required: Vec<String> = required.map(ToString::to_string).collect();
            all.extend(required.iter().cloned());
            json!({
                "verb": capability.verb.to_string(),
                "name": capability.name.to_string(),
                "version": capability.version.to_string(),
                "spiffe_id": capability.spiffe_id.as_ref().map(ToString::to_string),
                "required_capabilities": required,
            })
        })
        .collect();
    json!({
        "worker": { "id": id, "file": file.file_stem().map(|stem| stem.to_string_lossy()) },
        "capabilities": capabilities,
        "required_capabilities": all,
        "imports": imports,
    })
}
