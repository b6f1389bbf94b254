//! Every way to take up room in /tmp, and to free it.

use serde_json::{Value, json};

use super::{BLOCK, MB, create, make, on, open, path, times, write};

/// A way to write: steps that fit, and the last step that does not.
pub type Way = (&'static str, Vec<Value>, Value);

pub fn ways_to_grow() -> Vec<Way> {
    let f = || create("f", "f");
    vec![
        ("a write", vec![f(), write("f", 0, MB)], write("f", MB, 1)),
        (
            "a write behind the end",
            vec![f(), write("f", MB - 1, 1)],
            write("f", MB, 1),
        ),
        (
            "a write far behind the end",
            vec![f()],
            write("f", u64::MAX, 1),
        ),
        (
            "a stream",
            vec![f(), on("stream", "f", MB)],
            json!({"op": "stream", "handle": "f", "at": MB, "bytes": 1}),
        ),
        (
            "an append",
            vec![f(), on("append", "f", MB / 2), on("append", "f", MB / 2)],
            on("append", "f", 1),
        ),
        (
            "a stream that nobody waits for",
            vec![
                f(),
                write("f", 0, MB - 9),
                json!({"op": "write_and_run", "handle": "f", "at": MB - 9, "bytes": 9}),
            ],
            json!({"op": "write_and_run", "handle": "f", "at": MB, "bytes": 9}),
        ),
        (
            "a size",
            vec![f(), on("set_size", "f", MB)],
            on("set_size", "f", MB + 1),
        ),
        ("an absurd size", vec![f()], on("set_size", "f", u64::MAX)),
        (
            "a second file",
            vec![make("f", MB / 2), make("g", MB / 2)],
            make("h", 1),
        ),
        (
            "many tiny files",
            vec![times(make("f{}", 1), MB / BLOCK)],
            make("g", 1),
        ),
        (
            "many empty files",
            vec![times(make("f{}", 0), 300)],
            make("g", 0),
        ),
        (
            "an exclusive open",
            vec![times(make("f{}", 0), 300)],
            open("g", "g", &["create", "exclusive"]),
        ),
        (
            "many directories",
            vec![times(path("mkdir", "d{}", ""), MB / BLOCK)],
            path("mkdir", "d", ""),
        ),
        (
            "many links",
            vec![times(path("symlink", "l{}", "f"), MB / BLOCK)],
            path("symlink", "l", "f"),
        ),
        (
            "many hard links",
            vec![make("f", 0), times(path("link", "f", "l{}"), 299)],
            path("link", "f", "l"),
        ),
    ]
}

pub fn ways_to_free() -> Vec<Way> {
    let half = MB / 2;
    let churn = (0..20).flat_map(|_| [make("f", MB), path("unlink", "f", "")]);
    vec![
        (
            "unlinked",
            [churn.collect(), vec![make("f", MB)]].concat(),
            make("g", 1),
        ),
        (
            "unlinked while open",
            vec![
                create("f", "f"),
                write("f", 0, half),
                path("unlink", "f", ""),
                write("f", half, half),
            ],
            make("g", 1),
        ),
        (
            "unlinked while open, then closed",
            vec![
                create("f", "f"),
                write("f", 0, MB),
                path("unlink", "f", ""),
                on("close", "f", 0),
                make("g", MB),
            ],
            make("h", 1),
        ),
        (
            "unlinked with another name left",
            vec![
                make("f", MB),
                path("link", "f", "g"),
                path("unlink", "f", ""),
            ],
            make("h", 1),
        ),
        (
            "unlinked with every name",
            vec![
                make("f", MB),
                path("link", "f", "g"),
                path("unlink", "f", ""),
                path("unlink", "g", ""),
                make("h", MB),
            ],
            make("i", 1),
        ),
        (
            "replaced by a rename",
            vec![
                make("f", half),
                make("g", half),
                path("rename", "f", "g"),
                make("h", half),
            ],
            make("i", 1),
        ),
        (
            "replaced while open",
            vec![
                make("f", half),
                create("g", "g"),
                write("g", 0, half),
                path("rename", "f", "g"),
            ],
            make("i", 1),
        ),
        (
            "renamed to itself",
            vec![
                make("f", half),
                path("link", "f", "g"),
                path("rename", "f", "g"),
                path("unlink", "f", ""),
                make("h", half),
            ],
            make("i", 1),
        ),
        (
            "truncated by an open",
            vec![
                make("f", MB),
                open("f", "f", &["truncate", "write"]),
                make("g", MB),
            ],
            make("h", 1),
        ),
        (
            "truncated",
            vec![
                create("f", "f"),
                write("f", 0, MB),
                on("set_size", "f", 0),
                make("g", MB),
            ],
            write("f", 0, 1),
        ),
        (
            "a removed directory",
            vec![
                times(path("mkdir", "d{}", ""), MB / BLOCK),
                times(path("rmdir", "d{}", ""), MB / BLOCK),
                make("g", MB),
            ],
            path("mkdir", "d", ""),
        ),
        (
            "a removal that does not say what it removes",
            vec![path("mkdir", "d", ""), make("f", MB - BLOCK)],
            path("mkdir", "e", ""),
        ),
    ]
}
