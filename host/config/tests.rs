use super::*;

fn load(
    flags: &[(&str, &str)],
    file: &str,
    environment: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    std::fs::write(&path, file).unwrap();
    let flags: Vec<(&str, String)> = flags
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()))
        .collect();
    let home = [("HOME", "/home/ada")];
    let environment = environment
        .iter()
        .chain(&home)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Config::load(&flags, find_file(None, dir.path()).as_deref(), environment)
}

fn refusal(flags: &[(&str, &str)], file: &str, environment: &[(&str, &str)]) -> String {
    load(flags, file, environment).unwrap_err().to_string()
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default_and_each_is_named() {
    let config = load(
        &[("listen", "127.0.0.1:0")],
        "listen = \"127.0.0.1:1\"\ngrace_ms = 5\nallowed_hosts = [\"Crank.example\"]\n[limits]\nwall_ms = 7\nmemory_mb = 8\n",
        &[("CRANK_LISTEN", "127.0.0.1:2"), ("CRANK_LIMITS_WALL_MS", "9"), ("CRANK_CONFIG", "x"), ("PATH", "x")],
    )
    .unwrap();
    assert_eq!(config.listen.port(), 0);
    assert_eq!(config.grace, Duration::from_millis(5));
    assert_eq!(config.limits.wall, Duration::from_millis(9));
    assert_eq!(config.limits.memory, ByteCount::mib(8));
    assert_eq!(config.limits.output, ByteCount::mib(32));
    assert_eq!(config.allowed_hosts, ["crank.example"]);
    assert_eq!(config.cache_dir, PathBuf::from("/home/ada/.cache/crank"));

    let lines: Vec<String> = config.settings().iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), layers::KEYS.len());
    assert_eq!(lines[0], "listen = \"127.0.0.1:0\"  # flag --listen");
    assert!(
        lines.contains(&"limits.wall_ms = 9  # environment CRANK_LIMITS_WALL_MS".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"limits.output_mb = 32  # default".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("grace_ms = 5  # file /") && line.ends_with("crank.toml"))
    );
    lines.join("\n").parse::<toml::Table>().unwrap();
}

#[test]
fn what_is_not_understood_is_refused_with_a_hint_and_all_at_once() {
    let text = refusal(
        &[],
        "lisen = \"x\"\nmemory_mb = 1\n[limits]\nwal_ms = 1\n[workers.\"pdf\"]\ngrant = []\n",
        &[("CRANK_LIMIT_MEMORY_MB", "1")],
    );
    for part in [
        "\"listen\"?",
        "\"limits.memory_mb\"?",
        "\"limits.wall_ms\"?",
        "\"grants\"?",
        "\"CRANK_LIMITS_MEMORY_MB\"?",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(refusal(&[], "listen = ", &[]).contains("crank.toml"));
}

#[test]
fn values_without_sense_are_refused() {
    for file in [
        "listen = \"localhost\"",
        "listen = 8080",
        "log = \"xml\"",
        "trust_domain = \"A\"",
        "controller_id = \"a b\"",
        "grace_ms = -1",
        "cache_dir = \"\"",
        "allowed_hosts = [\"http://x\"]",
        "allowed_hosts = [1]",
        "allowed_origins = [\"*\"]",
        "allowed_origins = [\"http://x/y\"]",
        "limits = 1",
        "[limits]\nmemory_mb = 0",
        "[limits]\nwall_ms = 0",
        "[limits]\ninstances = 100000",
        "[limits]\ninstances = 10\nconcurrency = 11",
        "[limits]\nconcurrency = \"\"\nworker_concurrency = 0",
        "[workers.pdf]\nconcurrency = 0",
        "[limits]\nheader_bytes = 1",
        "[limits]\nheader_bytes = 8192\nuri_bytes = 9000",
        "[limits]\nmemory_mb = 1.5",
        "memory_budget = 0",
        "memory_budget = \"lots\"",
        "disk_type = \"any\"",
        "disk_type = \"tape\"",
        "[limits]\nmax_cpu_shares = 1",
        "workers = 1",
        "[workers]\npdf = 1",
        "[workers.pdf]\nmemory_mb = 0",
        "[workers.pdf]\ncpu_shares = 1",
        "[workers.pdf]\nrelax = \"disk_type\"",
        "[workers.pdf]\ngrants = [\"a:b\"]",
        "[workers.pdf]\ngrants = \"wasi:io/x\"",
        "[workers.pdf]\nspiffe_id = \"spiffe://other/x\"",
        "[workers.a]\nspiffe_id = \"spiffe://crank.local/x\"\n[workers.b]\nspiffe_id = \"spiffe://crank.local/x\"",
    ] {
        assert!(load(&[], file, &[]).is_err(), "{file} was accepted");
    }
}

/// What follows from other values follows from those that hold, and is shown as a number.
#[test]
fn concurrency_follows_from_instances_and_cores_unless_it_is_said() {
    let config = load(&[], "[limits]\ninstances = 8\n", &[]).unwrap();
    assert_eq!(config.limits.concurrency, 6);
    assert!(config.limits.worker_concurrency >= 32);
    let lines: Vec<String> = config.settings().iter().map(ToString::to_string).collect();
    assert!(
        lines.contains(&"limits.concurrency = 6  # default".to_owned()),
        "{lines:?}"
    );
    let said = "[limits]\ninstances = 8\nconcurrency = 8\n[workers.pdf]\nconcurrency = 2";
    let config = load(&[], said, &[]).unwrap();
    assert_eq!(config.limits.concurrency, 8);
    assert_eq!(config.workers["pdf"].concurrency, Some(2));
}

#[test]
fn without_identities_only_loopback_binds() {
    for address in ["0.0.0.0:80", "192.0.2.1:80", "[::]:80"] {
        assert!(refusal(&[("listen", address)], "", &[]).contains("flag --listen: listen: "));
    }
    assert!(load(&[("listen", "[::1]:80")], "", &[]).is_ok());
}

#[test]
fn a_workers_section_is_read_and_shown() {
    let config = load(
        &[],
        "[workers.\"my.pdf\"]\ngrants = [\"wasi:keyvalue/store[zettel]\"]\ndeny = [\"wasi:random/*\"]\nmemory_mb = 4096\nwall_ms = 5\n\
         spiffe_id = \"spiffe://crank.local/worker/pdf\"\n",
        &[],
    )
    .unwrap();
    let worker = &config.workers["my.pdf"];
    assert_eq!(worker.grants[0].to_string(), "wasi:keyvalue/store[zettel]");
    assert_eq!(worker.deny[0].to_string(), "wasi:random/*");
    assert_eq!(worker.memory, Some(ByteCount::mib(4096)));
    assert_eq!(
        (worker.wall, worker.cpu),
        (Some(Duration::from_millis(5)), None)
    );
    let lines: Vec<String> = config.settings().iter().map(ToString::to_string).collect();
    lines.join("\n").parse::<toml::Table>().unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("workers.\"my.pdf\".memory_mb = 4096  # file ")),
        "{lines:?}"
    );
}

#[test]
fn the_machine_is_what_the_operator_says_and_an_empty_key_says_nothing() {
    let config = load(&[], "memory_budget = 512", &[("CRANK_DISK_TYPE", "nvme")]).unwrap();
    assert_eq!(config.memory_budget, Some(ByteCount::mib(512)));
    assert_eq!(config.disk_type, Some(DiskType::Nvme));
    let config = load(&[], "disk_type = \"\"", &[("CRANK_MEMORY_BUDGET", "")]).unwrap();
    assert_eq!((config.memory_budget, config.disk_type), (None, None));
}

#[test]
fn only_what_asks_something_of_the_host_can_be_relaxed() {
    let relax = |name: &str| load(&[], &format!("[workers.pdf]\nrelax = [{name:?}]"), &[]);
    for constraint in Constraint::ALL {
        let relaxed = relax(constraint.as_str());
        match relaxed {
            Ok(config) => {
                assert!(constraint.is_placement(), "{constraint:?}");
                assert_eq!(config.workers["pdf"].relax, [*constraint]);
            }
            Err(error) => {
                assert!(!constraint.is_placement(), "{constraint:?}: {error}");
                assert!(error.to_string().contains("a limit is raised"), "{error}");
            }
        }
    }
    let error = relax("disk_typ").unwrap_err().to_string();
    assert!(error.contains("did you mean \"disk_type\"?"), "{error}");
}
