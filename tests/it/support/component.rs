//! Components of WebAssembly text: workers that no honest compiler would make.
//!
//! A worker's records are given as JSON in the contract's own names; they are laid out here as the
//! canonical ABI wants them (CanonicalABI.md of the component model) and lie ready in the module's
//! memory. What remains to be written by hand is the misdeed.

use std::path::Path;

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Int, Resolve, SizeAlign, Type, TypeDefKind};

/// Where the data begins: an address that is not null and aligned for everything.
const BASE: usize = 16;

/// A worker as text. Everything but the declaration may be left at its default.
#[derive(Clone, Debug)]
pub struct Wat {
    /// The contract's record `worker`. Absent options, lists and strings are left out.
    pub declaration: Value,
    /// Instructions that run when `declare` is called, before the declaration is returned.
    pub declare: String,
    /// Instructions that run when `handle` is called, before the answer is returned.
    pub handle: String,
    /// What `handle` returns: `{"ok": payload}` or `{"err": failure}`.
    pub answer: Value,
    /// Instructions that run when the host asks for memory, before it is given some. The parameters
    /// are `$old`, `$old_size`, `$align` and `$size`, the result is an address.
    pub realloc: String,
    /// Packages of WIT, each in braces, besides the contract's.
    pub packages: String,
    /// Lines of the world: `import test:net/socket;`.
    pub world: String,
    /// Imports of the core module.
    pub imports: String,
    /// Further fields of the core module.
    pub items: String,
    /// Fields that are added to the finished component, where `$main` is the instance of the core
    /// module.
    pub component: String,
}

impl Wat {
    /// A worker that offers these capabilities and answers `{}`.
    pub fn new(worker_id: &str, capabilities: Value) -> Self {
        Self {
            declaration: json!({ "worker-id": worker_id, "capabilities": capabilities }),
            declare: String::new(),
            handle: String::new(),
            answer: json!({ "ok": { "media-type": "application/json", "body": "{}" } }),
            realloc: String::new(),
            packages: String::new(),
            world: String::new(),
            imports: String::new(),
            items: String::new(),
            component: String::new(),
        }
    }

    /// Answers with a text, then the input, then a bracket, after what `handle` does.
    pub fn answer_with(&mut self, prefix: &str) {
        // Beyond what a declaration takes, within the first page.
        self.items.push_str(&format!(
            r#"(data (i32.const 60000) "application/json") (data (i32.const 60100) "{prefix}]")"#
        ));
        let length = prefix.len();
        let before = std::mem::take(&mut self.handle);
        // The body of the request lies at parameter 6, its length is parameter 7. An answer is a result:
        // its tag, then the media type and the body, each an address and a length.
        self.handle = format!(
            "(local $answer i32) (local $body i32)
            {before}
            (local.set $body (call $realloc (i32.const 0) (i32.const 0) (i32.const 1)
                (i32.add (local.get 7) (i32.const {}))))
            (memory.copy (local.get $body) (i32.const 60100) (i32.const {length}))
            (memory.copy (i32.add (local.get $body) (i32.const {length}))
                (local.get 6) (local.get 7))
            (memory.copy (i32.add (local.get $body) (i32.add (i32.const {length}) (local.get 7)))
                (i32.const {}) (i32.const 1))
            (local.set $answer (call $realloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 64)))
            (i32.store offset=4 (local.get $answer) (i32.const 60000))
            (i32.store offset=8 (local.get $answer) (i32.const 16))
            (i32.store offset=12 (local.get $answer) (local.get $body))
            (i32.store offset=16 (local.get $answer) (i32.add (local.get 7) (i32.const {})))
            (return (local.get $answer))",
            length + 1,
            60100 + length,
            length + 1,
        );
    }

    /// The component's bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("wit");
        resolve.push_dir(wit).expect("the contract parses");
        let source = format!(
            "package test:guest; {} world guest {{ include crank:worker/worker@0.1.0; {} }}",
            self.packages, self.world
        );
        let package = resolve
            .push_source("guest.wit", &source)
            .expect("the test's WIT parses");
        let world = resolve
            .select_world(&[package], Some("guest"))
            .expect("there is a world");

        let text = self.module(&resolve);
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .expect("the world is encoded");
        let component = ComponentEncoder::default()
            .validate(true)
            .module(&module)
            .and_then(|encoder| encoder.encode())
            .unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        if self.component.is_empty() {
            return component;
        }
        let mut text = wasmprinter::print_bytes(&component).expect("a component prints");
        text.insert_str(
            text.rfind(')').expect("its last parenthesis"),
            &self.component,
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn module(&self, resolve: &Resolve) -> String {
        let mut data = Data::new(resolve);
        let declaration = data.place(
            returned(resolve, "capabilities", "declare"),
            &self.declaration,
        );
        let answer = data.place(returned(resolve, "handler", "handle"), &self.answer);
        let heap = (BASE + data.bytes.len()).next_multiple_of(BASE);
        let pages = heap.div_ceil(64 << 10);
        let bytes: String = data
            .bytes
            .iter()
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        let Self {
            declare,
            handle,
            realloc,
            imports,
            items,
            ..
        } = self;
        let request = "i32 ".repeat(16);
        format!(
            r#"(module
                {imports}
                (memory (export "memory") {pages})
                (global $heap (mut i32) (i32.const {heap}))
                (data (i32.const {BASE}) "{bytes}")
                (func $realloc (export "cabi_realloc")
                    (param $old i32) (param $old_size i32) (param $align i32) (param $size i32)
                    (result i32)
                    (local $at i32)
                    {realloc}
                    (local.set $at (global.get $heap))
                    (global.set $heap (i32.and (i32.const -16)
                        (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 15))))
                    (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
                        (then (drop (memory.grow (i32.add (i32.const 1)
                            (i32.div_u (local.get $size) (i32.const 65536)))))))
                    (local.get $at))
                (func (export "crank:worker/capabilities@0.1.0#declare") (result i32)
                    {declare} (i32.const {declaration}))
                (func (export "crank:worker/handler@0.1.0#handle") (param {request}) (result i32)
                    {handle} (i32.const {answer}))
                {items})"#
        )
    }
}

/// A worker `worker-NAME` that offers `misbehave:NAME`, computes until its deadline and has a weight.
pub fn runaway(name: &str, shares: u32) -> Wat {
    let mut offered = capability(name);
    offered["constraints"] = json!({ "cpu-shares": shares });
    let mut wat = Wat::new(
        &format!("worker-{name}").replace('_', "-"),
        json!([offered]),
    );
    wat.handle = "(loop $again (br $again))".to_owned();
    wat
}

/// The same, but it computes for so many microseconds at a time and then waits for as short a time as
/// it can: never for a whole tick, where that is a millisecond.
pub fn bursting(name: &str, shares: u32, micros: u32) -> Wat {
    let mut wat = runaway(name, shares);
    wat.packages = "
        package wasi:io@0.2.0 { interface poll { resource pollable { block: func(); } } }
        package wasi:clocks@0.2.0 {
            interface monotonic-clock {
                use wasi:io/poll@0.2.0.{pollable};
                now: func() -> u64;
                subscribe-duration: func(when: u64) -> pollable;
            }
        }"
    .to_owned();
    wat.world = "import wasi:io/poll@0.2.0; import wasi:clocks/monotonic-clock@0.2.0;".to_owned();
    wat.imports = r#"
        (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
        (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
            (func $subscribe (param i64) (result i32)))
        (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
        (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop (param i32)))"#
        .to_owned();
    wat.handle = format!(
        "(local $end i64) (local $left i32) (local $wait i32)
        (loop $again
            (local.set $end (i64.add (call $now) (i64.const {micros}000)))
            (loop $burst
                (local.set $left (i32.const 5000))
                (loop $work (br_if $work
                    (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
                (br_if $burst (i64.lt_u (call $now) (local.get $end))))
            (local.set $wait (call $subscribe (i64.const 1000)))
            (call $block (local.get $wait))
            (call $drop (local.get $wait))
            (br $again))"
    );
    wat
}

/// A capability `misbehave:NAME` that takes and returns any JSON.
pub fn capability(name: &str) -> Value {
    json!({
        "verb": "misbehave", "name": name, "version": "1.0.0", "description": "For tests.",
        "input": "{}", "output": "{}", "produces": "application/json",
    })
}

/// The type that a function of the contract returns.
fn returned(resolve: &Resolve, interface: &str, function: &str) -> Type {
    let (_, interface) = resolve
        .interfaces
        .iter()
        .find(|(_, found)| found.name.as_deref() == Some(interface))
        .expect("the contract has this interface");
    interface.functions[function]
        .result
        .expect("it returns something")
}

/// Static data, laid out by the canonical ABI.
struct Data<'a> {
    resolve: &'a Resolve,
    sizes: SizeAlign,
    bytes: Vec<u8>,
}

impl<'a> Data<'a> {
    fn new(resolve: &'a Resolve) -> Self {
        let mut sizes = SizeAlign::default();
        sizes.fill(resolve);
        Self {
            resolve,
            sizes,
            bytes: Vec::new(),
        }
    }

    /// Lays out a value of its own and returns its address.
    fn place(&mut self, ty: Type, value: &Value) -> usize {
        let at = self.reserve(&ty, 1);
        self.write(at, &ty, value);
        BASE + at
    }

    fn reserve(&mut self, ty: &Type, count: usize) -> usize {
        let at = self
            .bytes
            .len()
            .next_multiple_of(self.sizes.align(ty).align_wasm32());
        self.bytes
            .resize(at + self.sizes.size(ty).size_wasm32() * count, 0);
        at
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }

    /// Address and length of a list or a string.
    fn put_span(&mut self, at: usize, start: usize, length: usize) {
        self.put(at, ((BASE + start) as u32).to_le_bytes());
        self.put(at + 4, (length as u32).to_le_bytes());
    }

    /// Writes a value at an offset. Null is whatever zeros mean: none, the empty list, the empty text.
    fn write(&mut self, at: usize, ty: &Type, value: &Value) {
        let resolve = self.resolve;
        match (ty, value) {
            (_, Value::Null) => {}
            (Type::String, Value::String(text)) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(text.as_bytes());
                self.put_span(at, start, text.len());
            }
            (Type::U32, value) => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                self.put(at, number.expect("a u32").to_le_bytes());
            }
            // JSON has no word for what is no number.
            (Type::F64, Value::String(text)) if text == "NaN" => {
                self.put(at, f64::NAN.to_le_bytes());
            }
            (Type::F64, value) => self.put(at, value.as_f64().expect("a number").to_le_bytes()),
            (Type::Id(id), value) => self.write_defined(at, &resolve.types[*id].kind, value),
            (ty, value) => panic!("{value} is not a {ty:?}"),
        }
    }

    fn write_defined(&mut self, at: usize, kind: &'a TypeDefKind, value: &Value) {
        match (kind, value) {
            (TypeDefKind::Type(ty), value) => self.write(at, ty, value),
            (TypeDefKind::Record(record), Value::Object(fields)) => {
                for name in fields.keys() {
                    assert!(
                        record.fields.iter().any(|field| field.name == *name),
                        "no field {name}"
                    );
                }
                let offsets = self
                    .sizes
                    .field_offsets(record.fields.iter().map(|field| &field.ty));
                for ((offset, ty), field) in offsets.into_iter().zip(&record.fields) {
                    self.write(at + offset.size_wasm32(), ty, &value[&field.name]);
                }
            }
            (TypeDefKind::Tuple(tuple), Value::Array(items)) => {
                let offsets = self.sizes.field_offsets(&tuple.types);
                for ((offset, ty), item) in offsets.into_iter().zip(items) {
                    self.write(at + offset.size_wasm32(), ty, item);
                }
            }
            // Bytes may be given as text.
            (TypeDefKind::List(Type::U8), Value::String(text)) => {
                self.write(at, &Type::String, &json!(text));
            }
            (TypeDefKind::List(ty), Value::Array(items)) => {
                let start = self.reserve(ty, items.len());
                let size = self.sizes.size(ty).size_wasm32();
                for (index, item) in items.iter().enumerate() {
                    self.write(start + index * size, ty, item);
                }
                self.put_span(at, start, items.len());
            }
            (TypeDefKind::Option(ty), value) => self.write_case(at, 1, [Some(ty)], Some(ty), value),
            (TypeDefKind::Result(result), Value::Object(case)) => {
                let cases = [result.ok.as_ref(), result.err.as_ref()];
                let tag = usize::from(!case.contains_key("ok"));
                let value = case.values().next().expect("`ok` or `err`");
                self.write_case(at, tag as u8, cases, cases[tag], value);
            }
            (TypeDefKind::Enum(cases), Value::String(case)) => {
                let tag = cases.cases.iter().position(|known| known.name == *case);
                self.put(at, [tag.expect("a case of the enum") as u8]);
            }
            (kind, value) => panic!("{value} is not a {kind:?}"),
        }
    }

    fn write_case<const N: usize>(
        &mut self,
        at: usize,
        tag: u8,
        cases: [Option<&Type>; N],
        ty: Option<&Type>,
        value: &Value,
    ) {
        self.put(at, [tag]);
        let offset = self.sizes.payload_offset(Int::U8, cases).size_wasm32();
        if let Some(ty) = ty {
            self.write(at + offset, ty, value);
        }
    }
}
