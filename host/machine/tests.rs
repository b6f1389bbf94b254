use super::*;

/// A tree of the kernel's files.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn config(toml: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("crank.toml");
    fs::write(&file, toml).unwrap();
    let home = [("HOME".to_owned(), "/home/ada".to_owned())];
    Config::load(&[], Some(&file), home).unwrap()
}

const MEMINFO: (&str, &str) = (
    "proc/meminfo",
    "MemTotal:        8388608 kB\nMemFree:         1 kB\n",
);

#[test]
fn memory_is_the_least_of_the_machines_and_of_every_group_above() {
    let least = |files: &[(&str, &str)]| {
        let memory = memory_under(tree(&[&[MEMINFO], files].concat()).path()).unwrap();
        (memory.size.get() >> 20, memory.from)
    };
    let total = (8192, "MemTotal of /proc/meminfo".to_owned());
    assert_eq!(least(&[]), total);

    let v2 = ("proc/self/cgroup", "0::/system.slice/crank.service\n");
    assert_eq!(
        least(&[
            v2,
            ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
            (
                "sys/fs/cgroup/system.slice/crank.service/memory.max",
                "max\n"
            ),
        ]),
        (1024, "/sys/fs/cgroup/system.slice/memory.max".to_owned())
    );
    // A container that sees its own group as the top, and the outside's path.
    assert_eq!(
        least(&[v2, ("sys/fs/cgroup/memory.max", "536870912\n")]),
        (512, "/sys/fs/cgroup/memory.max".to_owned())
    );

    let v1 = ("proc/self/cgroup", "5:cpu:/a\n4:memory,x:/a/b\n0::/\n");
    let group = "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes";
    assert_eq!(least(&[v1, (group, "1048576\n")]), (1, format!("/{group}")));
    // What version 1 says where it limits nothing.
    assert_eq!(least(&[v1, (group, "9223372036854771712\n")]), total);
}

#[test]
fn the_budget_is_three_quarters_unless_the_operator_says_otherwise() {
    let read = |root: &tempfile::TempDir, toml| {
        Machine::read_under(root.path(), &config(toml), Path::new("/"))
            .map(|machine| machine.budget)
    };
    let known = tree(&[MEMINFO]);
    assert_eq!(read(&known, ""), Ok(ByteCount::mib(6144)));
    assert_eq!(
        read(&known, "memory_budget = 7000"),
        Ok(ByteCount::mib(7000))
    );
    let unknown = tree(&[]);
    assert_eq!(read(&unknown, ""), Err(MemoryUnknown));
    assert_eq!(read(&unknown, "memory_budget = 70"), Ok(ByteCount::mib(70)));
}

#[test]
fn a_disk_is_known_by_its_queue_also_that_of_a_partition() {
    let root = tree(&[
        ("sys/devices/vda/queue/rotational", "1\n"),
        ("sys/devices/vda/vda1/partition", "1\n"),
        ("sys/devices/nvme0n1/queue/rotational", "0\n"),
        ("sys/devices/sda/queue/rotational", "0\n"),
        ("sys/dev/block/keep", ""),
    ]);
    let link = |number: &str, to: &str| {
        let link = root.path().join("sys/dev/block").join(number);
        std::os::unix::fs::symlink(format!("../../devices/{to}"), link).unwrap();
    };
    link("254:1", "vda/vda1");
    link("259:0", "nvme0n1");
    link("8:0", "sda");
    let kind = |major, minor| disk(root.path(), major, minor).0;
    assert_eq!(kind(254, 1), Some(DiskType::Hdd));
    assert_eq!(kind(259, 0), Some(DiskType::Nvme));
    assert_eq!(kind(8, 0), Some(DiskType::Ssd));
    assert_eq!(kind(0, 42), None);
    assert_eq!(
        disk(root.path(), 254, 1).1,
        "/sys/block/vda/queue/rotational"
    );
}

#[test]
fn a_directory_that_is_not_there_yet_lies_where_its_parent_does() {
    let dir = tempfile::tempdir().unwrap();
    let there = device(dir.path()).unwrap();
    assert_eq!(device(&dir.path().join("not/yet")).unwrap(), there);
}
