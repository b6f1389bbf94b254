use super::*;

fn shader(body: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
         @group(0) @binding(1) var<storage, read> input: array<u32>;
         @group(0) @binding(2) var<uniform> n: u32;
         var<workgroup> tile: array<u32, 64>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>,
                 @builtin(local_invocation_index) me: u32) {{ {body} }}"
    )
}

fn compile(body: &str) -> Result<Shader, String> {
    Shader::compile(&shader(body), "main", true)
}

#[test]
fn loops_have_a_counter_and_straight_code_has_none() {
    assert_eq!(compile("out[id.x] = input[id.x] + n;").unwrap().counters, 0);
    let shared =
        compile("var s = 0u; for (var i = 0u; i < n; i++) { s += input[i]; } out[id.x] = s;");
    assert_eq!(shared.unwrap().counters, 1);
    let both = compile(
        "var s = 0u; for (var i = 0u; i < n; i++) { s += 1u; }
         for (var i = 0u; i < me; i++) { s += 1u; } out[id.x] = s;",
    );
    assert_eq!(both.unwrap().counters, 2);
}

/// Loops of a shader that look at their fuel.
fn looks(body: &str) -> usize {
    looks_of(&compile(body).unwrap_or_else(|error| panic!("{body}: {error}")))
}

fn looks_of(compiled: &Shader) -> usize {
    let mut looks = 0;
    walk(&compiled.module.entry_points[0].function.body, &mut |at| {
        if let Statement::Loop { body, .. } = at {
            let first = |statement: &&Statement| matches!(statement, Statement::If { .. });
            if let Some(Statement::If { accept, .. }) = body.iter().find(first) {
                looks += usize::from(matches!(accept.last(), Some(Statement::Break)));
            }
        }
    });
    looks
}

#[test]
fn a_short_loop_needs_no_fuel_and_counts_as_written_out() {
    let window = "var s = 0u; for (var y = 0u; y < 3u; y++) { for (var x = 0u; x < 3u; x++) { s += input[y * 3u + x]; } } out[id.x] = s;";
    assert_eq!(looks(window), 0);
    let once = compile("var s = 0u; s += input[0]; out[id.x] = s;").unwrap();
    assert!(compile(window).unwrap().steps > 9 * once.steps / 2);
    // Of loops in loops the inner ones need none.
    for turns in ["n", "32u"] {
        let around = format!("for (var c = 0u; c < {turns}; c++) {{ {window} }}");
        assert_eq!(looks(&around), 1);
    }
}

#[test]
fn a_loop_that_may_be_long_looks_at_its_fuel() {
    for body in [
        "for (var i = 0u; i < 64u; i++) { out[i] = 1u; }",
        "for (var i = 0; i < 3; i++) { out[i] = 1u; }",
        "for (var i = 0u; i < 3u; i += 0u) { out[i] = 1u; }",
        "for (var i = 0u; i < 3u; i++) { i = 0u; }",
        "for (var i = 0u; i < 3u; i++) { let p = &i; *p = 0u; }",
        "var i = 0u; for (var k = 0u; i < 3u; k++) { out[k] = 1u; }",
        "var i = 0u; let old = i; loop { if (i < 3u) {} else { break; } continuing { i = old + 1u; } }",
        "var i = 0u; let less = i < 3u; loop { if (less) {} else { break; } continuing { i = i + 1u; } }",
        "var i = 0u; loop { if (out[0] == 1u) { continue; } if (i < 3u) {} else { break; } continuing { i++; } }",
        "var i = 0u; loop { if (i < 3u) {} else { out[0] = 1u; } continuing { i++; } }",
        "var i = 0u; loop { if (i < 3u) {} else { break; } if (out[0] == 1u) { i++; } }",
    ] {
        assert_eq!(looks(body), 1, "{body}");
    }
    let held = "for (var i = 0u; i < 3u; i++) { for (var k = 0u; k < n; k++) { out[k] += i; } }";
    assert_eq!(looks(held), 2);
    let called = Shader::compile(
        "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
         fn back(i: ptr<function, u32>) { *i = 0u; }
         @compute @workgroup_size(1) fn main() { for (var i = 0u; i < 3u; i++) { back(&i); out[0] = i; } }",
        "main",
        true,
    );
    assert_eq!(looks_of(&called.unwrap()), 1);
}

#[test]
fn a_barrier_is_fine_where_all_threads_come() {
    for body in [
        "tile[me] = input[id.x]; workgroupBarrier(); out[id.x] = tile[63u - me];",
        "for (var i = 0u; i < n; i++) { tile[me] = input[id.x + i]; workgroupBarrier(); out[id.x] += tile[0]; workgroupBarrier(); }",
        "if (group.x == 0u) { workgroupBarrier(); } out[id.x] = 1u;",
        "if (n > 3u) { return; } workgroupBarrier(); out[id.x] = 1u;",
        "for (var i = 0u; i < me; i++) { out[id.x] += 1u; } workgroupBarrier(); out[id.x] += tile[0];",
        "var i = 0u; loop { if (i >= input[0]) { break; } workgroupBarrier(); i++; } out[id.x] = i;",
    ] {
        let compiled = compile(body);
        assert!(compiled.is_ok(), "{body}: {}", compiled.unwrap_err());
    }
}

#[test]
fn a_barrier_that_some_threads_miss_is_refused() {
    for body in [
        "if (me == 0u) { workgroupBarrier(); } out[id.x] = 1u;",
        "if (me == 0u) { return; } workgroupBarrier(); out[id.x] = 1u;",
        "for (var i = 0u; i < me; i++) { workgroupBarrier(); } out[id.x] = 1u;",
        "for (var i = 0u; i < n; i++) { if (out[0] == i) { break; } workgroupBarrier(); } out[id.x] = 1u;",
        "for (var i = 0u; i < n; i++) { if (me == i) { continue; } workgroupBarrier(); } out[id.x] = 1u;",
        "var k = 0u; if (me > 3u) { k = 1u; } if (k == 0u) { workgroupBarrier(); } out[id.x] = 1u;",
        "var k = 0u; for (var i = 0u; i < me; i++) { k += 1u; } for (var i = 0u; i < k; i++) { workgroupBarrier(); } out[id.x] = k;",
        "switch (me) { case 1u: { workgroupBarrier(); } default: {} } out[id.x] = 1u;",
        "var i = 0u; loop { workgroupBarrier(); i++; continuing { break if i > me; } } out[id.x] = i;",
        "switch (n) { case 1u: { if (me == 0u) { break; } workgroupBarrier(); } default: {} } out[id.x] = 1u;",
        "var k = 0u; switch (n) { default: { if (me == 0u) { break; } k = 1u; } } if (k == 1u) { workgroupBarrier(); } out[id.x] = 1u;",
        "loop { if (me == 1u) { return; } workgroupBarrier(); if (n > 2u) { break; } } out[id.x] = 1u;",
    ] {
        assert!(compile(body).is_err(), "{body}");
    }
}

#[test]
fn what_is_too_large_is_refused_and_says_why() {
    let calls: String = (1..40)
        .map(|at| {
            format!(
                "fn f{at}(x: u32) -> u32 {{ return f{0}(x) + f{0}(x + 1u); }}",
                at - 1
            )
        })
        .collect();
    let tree = format!("fn f0(x: u32) -> u32 {{ return x; }} {calls}");
    let deep = format!("out[0] = {}1u{};", "(".repeat(20_000), ")".repeat(20_000));
    let angles = format!(
        "var x: {}u32{};",
        "array<".repeat(5_000),
        ",1>".repeat(5_000)
    );
    for (text, why) in [
        (shader("var a: array<u32, 100000000>; out[0] = a[me];"), "variables of a thread"),
        (shader("let a = array<u32, 5000>(); out[0] = a[3];"), "a value of"),
        (shader(&deep), "nested"),
        (shader(&angles), ""),
        (shader("out[0] = 1u;") + &" ".repeat(TEXT), "bytes"),
        (format!("{tree}{}", shader("out[0] = f39(1u);")), "longer than"),
        (shader("").replace("array<u32, 64>", "array<u32, 20000>").replace("{  }", "{ tile[me] = 1u; }"), "workgroup"),
        (shader("").replace("fn main", "fn other"), "entry point"),
        ("@fragment fn main() {}".to_owned(), "compute"),
        ("override n: u32; @compute @workgroup_size(1) fn main() {}".to_owned(), "override"),
        ("@group(3) @binding(0) var<storage, read_write> o: array<u32>; @compute @workgroup_size(1) fn main() { o[0] = 1u; }".to_owned(), "group 0"),
        ("fn {".to_owned(), "expected"),
    ] {
        let error = Shader::compile(&text, "main", true).expect_err(why);
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[test]
fn work_is_threads_times_steps_times_fuel() {
    let plain = compile("out[id.x] = 1u;").unwrap();
    assert_eq!(plain.work([2, 3, 4], 1_000, 1), 24 * 128 * plain.steps);
    assert_eq!(
        plain.work([1, 1, 1], 1_000, 1 << 16),
        (1 << 16) * plain.steps
    );
    let looped = compile("loop { if (out[me] == 3u) { break; } }").unwrap();
    assert_eq!(looped.work([1, 1, 1], 9, 1), 128 * looped.steps * 10);
    assert_eq!(looped.work([u32::MAX; 3], u32::MAX, 1), u64::MAX);
}
