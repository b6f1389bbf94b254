use super::*;

fn entries(texts: &[&str]) -> Vec<InterfaceEntry> {
    let entry = |text: &&str| match Required::parse(text).unwrap() {
        Required::Interface(entry) => entry,
        Required::Capability { .. } => panic!("{text} is no interface"),
    };
    texts.iter().map(entry).collect()
}

fn judge(
    imports: &[&str],
    declared: &[&str],
    grants: &[&str],
    deny: &[&str],
) -> Result<Grants, Vec<Refusal>> {
    let imports: Vec<Import> = imports
        .iter()
        .map(|name| Import::parse(name).unwrap())
        .collect();
    let declared: Vec<Required> = declared
        .iter()
        .map(|text| Required::parse(text).unwrap())
        .collect();
    let (grants, deny) = (entries(grants), entries(deny));
    decide(
        &imports,
        &declared,
        &OperatorGrants {
            stem: "my-worker",
            grants: &grants,
            deny: &deny,
        },
    )
}

fn refusal(imports: &[&str], declared: &[&str], grants: &[&str], deny: &[&str]) -> Refusal {
    let refusals = judge(imports, declared, grants, deny).unwrap_err();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals.into_iter().next().unwrap()
}

#[test]
fn powerless_imports_need_no_declaration_and_only_they_are_linked() {
    let grants = judge(
        &[
            "crank:worker/types@0.1.0",
            "crank:worker/log@0.1.0",
            "wasi:io/streams@0.2.3",
            "wasi:cli/stderr@0.2.12",
        ],
        &["convert:email_to_text", "wasi:clocks/*"],
        &[],
        &[],
    )
    .unwrap();
    assert_eq!(
        grants.iter().collect::<Vec<_>>(),
        [Interface::Log, Interface::WasiIo, Interface::WasiCli]
    );
    assert!(
        !grants.iter().any(|linked| linked == Interface::WasiClocks),
        "declared, but not imported"
    );
    assert_eq!(judge(&[], &[], &[], &[]).unwrap(), Grants::default());
}

#[test]
fn an_undeclared_import_is_refused_with_the_line_for_its_author() {
    // What the operator would grant does not matter as long as the worker does not ask.
    let refused = refusal(
        &["wasi:keyvalue/store@0.2.0-draft2"],
        &[],
        &["wasi:keyvalue/*"],
        &[],
    );
    assert_eq!(refused.reason, Reason::Undeclared);
    assert_eq!(refused.subject, "wasi:keyvalue/store@0.2.0-draft2");
    assert_eq!(
        refused.line.as_deref(),
        Some("required_capabilities: \"wasi:keyvalue/store\"")
    );
    let neighbour = judge(
        &["wasi:keyvalue/store@0.2.0-draft2"],
        &["wasi:keyvalue/batch"],
        &[],
        &[],
    )
    .unwrap_err();
    assert_eq!(neighbour[0].reason, Reason::Undeclared);
}

#[test]
fn what_is_declared_and_not_granted_is_refused_with_the_line_for_the_operator() {
    for grants in [
        &[][..],
        &["wasi:http/types"],
        &["wasi:http/outgoing-handler[b:443]"],
    ] {
        let refused = refusal(&[], &["wasi:http/outgoing-handler"], grants, &[]);
        assert_eq!(refused.reason, Reason::NotGranted);
        let line = "[workers.\"my-worker\"] grants = [\"wasi:http/outgoing-handler\"]";
        assert_eq!(refused.line.as_deref(), Some(line));
        assert!(refused.to_string().contains("my-worker") && refused.to_string().contains(line));
    }
    let granted = refusal(
        &[],
        &["wasi:http/outgoing-handler[a:443]"],
        &["wasi:http/*[a:443,b:443]"],
        &[],
    );
    assert_eq!(granted.reason, Reason::NotOffered);
}

#[test]
fn a_workers_own_bucket_is_granted_and_a_shared_one_is_the_operators_to_grant() {
    let import = "wasi:keyvalue/store@0.2.0-draft2";
    let linked = |declared: &[&str], grants: &[&str]| {
        let imports = [import, "wasi:keyvalue/atomics@0.2.0-draft2"];
        judge(&imports, declared, grants, &[])
    };
    let keyvalue: Vec<Interface> = vec![Interface::WasiKeyvalue];
    for (declared, grants) in [
        ("wasi:keyvalue/store", ""),
        ("wasi:keyvalue/*", ""),
        ("wasi:keyvalue/store[default,index:ro]", ""),
        (
            "wasi:keyvalue/store[zettel]",
            "wasi:keyvalue/store[notes,zettel]",
        ),
        ("wasi:keyvalue/store[zettel:ro]", "wasi:keyvalue/*[zettel]"),
        (
            "wasi:keyvalue/store[zettel:ro]",
            "wasi:keyvalue/store[zettel:ro]",
        ),
    ] {
        let grants: Vec<&str> = [grants]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        let granted = linked(&[declared], &grants).unwrap();
        assert_eq!(granted.iter().collect::<Vec<_>>(), keyvalue, "{declared}");
    }
    // An entry without a scope means the worker's own buckets, in a grant too.
    for grant in [
        "wasi:keyvalue/store",
        "wasi:keyvalue/store[zettel:ro]",
        "wasi:keyvalue/atomics[zettel]",
    ] {
        let refused = linked(&["wasi:keyvalue/store[default,zettel]"], &[grant]).unwrap_err();
        assert_eq!(refused[0].reason, Reason::NotGranted, "{grant}");
        let line = "[workers.\"my-worker\"] grants = [\"wasi:keyvalue/store[zettel]\"]";
        assert_eq!(refused[0].line.as_deref(), Some(line));
    }
    for declared in [
        "wasi:keyvalue/store[zettel:rw]",
        "wasi:keyvalue/store[Zettel]",
        "wasi:keyvalue/batch[zettel]",
    ] {
        let refused = linked(
            &["wasi:keyvalue/store", declared],
            &["wasi:keyvalue/*[zettel]"],
        );
        assert_eq!(
            refused.unwrap_err()[0].reason,
            Reason::NotOffered,
            "{declared}"
        );
    }
    for import in [
        "wasi:keyvalue/store@0.2.0",
        "wasi:keyvalue/store@0.2.0-draft",
    ] {
        let refused = refusal(&[import], &["wasi:keyvalue/store"], &[], &[]);
        assert!(
            refused.detail.contains("0.2.0-draft2"),
            "{}",
            refused.detail
        );
    }
}

#[test]
fn a_capability_opens_the_buckets_that_its_own_entries_name() {
    let buckets = |texts: &[&str]| {
        let required: Vec<Required> = texts
            .iter()
            .map(|text| Required::parse(text).unwrap())
            .collect();
        Buckets::of(&required)
    };
    assert_eq!(
        buckets(&["wasi:keyvalue/batch", "greet:hello"]),
        Buckets::default()
    );
    let own = buckets(&["wasi:keyvalue/store"]);
    assert_eq!(own.access(""), Some((OWN, Access::Write)));
    assert_eq!(own.access(INDEX), Some((INDEX, Access::Write)));
    assert_eq!(own.access("zettel"), None);
    let named = buckets(&["wasi:keyvalue/store[a:ro,b:ro]", "wasi:keyvalue/*[b]"]);
    assert_eq!(named.access("a"), Some(("a", Access::Read)));
    assert_eq!(named.access("b"), Some(("b", Access::Write)));
    assert_eq!((named.access(""), named.access("a:ro")), (None, None));
}

#[test]
fn a_capability_that_is_declared_grants_the_way_to_it_unless_the_operator_denies_it() {
    let (import, declared) = (["crank:worker/peers@0.1.0"], ["convert:pdf_to_text"]);
    let grants = judge(&import, &declared, &[], &[]).unwrap();
    assert_eq!(grants.iter().collect::<Vec<_>>(), [Interface::Peers]);
    let denied = refusal(&import, &declared, &[], &["crank:worker/peers"]);
    assert_eq!(denied.reason, Reason::Denied);
}

#[test]
fn what_this_host_does_not_offer_is_refused_even_if_declared_and_granted() {
    let refused = judge(
        &["wasi:sockets/tcp@0.2.0"],
        &["wasi:sockets/*"],
        &["wasi:sockets/*"],
        &[],
    )
    .unwrap_err();
    assert!(
        refused
            .iter()
            .all(|refusal| refusal.reason == Reason::NotOffered),
        "{refused:?}"
    );
    let undeclared = refusal(&["crank:worker/peers@0.1.0"], &[], &[], &[]);
    assert_eq!(
        undeclared.line.as_deref(),
        Some("required_capabilities: \"verb:name\"")
    );
    assert_eq!(
        refusal(&[], &["crank:worker/*"], &[], &[]).reason,
        Reason::NotGranted
    );
}

#[test]
fn a_version_that_the_host_does_not_speak_is_refused_with_those_it_does() {
    for import in [
        "wasi:io/poll@0.2.13",
        "wasi:io/poll@0.3.0",
        "wasi:io/poll@0.2.0-rc-2023-11-10",
        "wasi:io/poll@1.2.0",
    ] {
        let refused = refusal(&[import], &[], &[], &[]);
        assert_eq!(refused.reason, Reason::Version);
        assert!(
            refused.detail.contains("0.2.0 to 0.2.12"),
            "{}",
            refused.detail
        );
    }
    assert_eq!(
        refusal(&["crank:worker/log@0.2.0"], &[], &[], &[]).reason,
        Reason::Version
    );
    assert_eq!(
        refusal(&[], &["wasi:io/poll@^0.3"], &[], &[]).reason,
        Reason::Version
    );
}

#[test]
fn the_operator_may_deny_even_what_is_powerless() {
    let refused = refusal(&["wasi:random/random@0.2.0"], &[], &[], &["wasi:random/*"]);
    assert_eq!(refused.reason, Reason::Denied);
    assert_eq!(
        refused.line.as_deref(),
        Some("[workers.\"my-worker\"] deny = [\"wasi:random/*\"]")
    );
}

#[test]
fn names_that_are_no_interfaces_are_no_imports() {
    for name in [
        "",
        "run",
        "a:b",
        "a:b/*",
        "a:b/c@",
        "a:b/c@x",
        "a:b/c[d]",
        "a:b/c@1.0.0[d]",
    ] {
        assert_eq!(Import::parse(name), None, "{name}");
    }
}
