//! A guest's shader before any driver sees it: read, bounded, metered.
//!
//! Nothing stops a shader once it is submitted, so what it can do at most is known before: its text,
//! its memory and its steps are capped here, and every loop counts. Pure: no GPU is needed to be sure.

mod fuel;
mod turns;
mod uniform;

use std::collections::BTreeMap;

use naga::proc::GlobalCtx;
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{
    AddressSpace, Block, Expression, Function, Module, ShaderStage, Statement, StorageAccess,
    TypeInner,
};

pub use fuel::METER_GROUP;

/// The longest shader, in bytes of WGSL.
pub const TEXT: usize = 64 << 10;
/// What the variables of one thread, or of one workgroup, may take, in bytes: a private array of
/// 400 MB made a driver take 9.6 GB.
const VARIABLES: u64 = 16 << 10;
/// The largest single value, in bytes.
const VALUE: u32 = 1 << 10;
/// What a thread may do between two looks at its fuel, in steps.
const STEPS: u64 = 1 << 17;
/// Brackets within brackets: parsers and drivers recurse.
const NESTING: usize = 64;
/// Types within types.
const TYPES: u32 = 32;
/// Operators of one statement.
const OPERATORS: usize = 400;
/// How often `else` may stand in a shader.
const ELSES: usize = 250;
/// The highest slot of a buffer.
const SLOTS: u32 = 16;

/// A shader that may run: every loop in it counts, but those that are known to be short.
#[derive(Clone, Debug)]
pub struct Shader {
    /// What the driver is given.
    pub module: Module,
    /// Threads of one workgroup.
    pub threads: u64,
    /// What one thread does between two looks at its fuel, in steps, at most.
    pub steps: u64,
    /// How many counters of fuel it has: none without loops.
    pub counters: u64,
    /// The buffers that it uses, by slot of group 0.
    pub slots: BTreeMap<u32, Slot>,
}

/// A buffer that a shader uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `var<uniform>`
    Uniform,
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    Write,
}

/// Reads a shader and throws the result away.
///
/// # Errors
///
/// Why it may not run, for its author.
pub fn read(wgsl: &str, entry: &str) -> Result<(), String> {
    Shader::compile(wgsl, entry, true).map(drop)
}

impl Shader {
    /// Reads WGSL and meters one entry point of it, if it is to be metered.
    ///
    /// # Errors
    ///
    /// Why it may not run, for its author.
    pub fn compile(wgsl: &str, entry: &str, metered: bool) -> Result<Self, String> {
        if wgsl.len() > TEXT {
            return Err(format!(
                "the shader is {} bytes; the most is {TEXT}",
                wgsl.len()
            ));
        }
        depths(wgsl)?;
        let mut module =
            naga::front::wgsl::parse_str(wgsl).map_err(|error| error.emit_to_string(wgsl))?;
        keep(&mut module, entry)?;
        let info = validate(&module).map_err(|error| error.emit_to_string(wgsl))?;
        let slots = slots(&module)?;
        nested_types(&module)?;
        let zeroed = variables(&module)?;
        let steps = costs(&module, &info)?.saturating_add(zeroed);
        let loops = uniform::check(&module)?;
        let counters = match metered {
            true => fuel::meter(&mut module, &loops)?,
            false => 0,
        };
        validate(&module)
            .map_err(|error| format!("cannot be metered: {}", error.emit_to_string(wgsl)))?;
        let [x, y, z] = module.entry_points[0].workgroup_size.map(u64::from);
        Ok(Self {
            module,
            threads: x * y * z,
            steps,
            counters,
            slots,
        })
    }

    /// The most that one dispatch may do, in steps over all threads, on a GPU that needs so many threads to
    /// be at its rate. Threads of a workgroup run by groups of up to 64, and to start one costs something.
    pub fn work(&self, workgroups: [u32; 3], fuel: u32, parallel: u64) -> u64 {
        let groups = workgroups
            .iter()
            .fold(1_u64, |all, &count| all.saturating_mul(u64::from(count)));
        let threads = groups.saturating_mul(self.threads.next_multiple_of(64) + 64);
        let rounds = 1 + self.counters * u64::from(fuel);
        threads
            .max(parallel)
            .saturating_mul(self.steps)
            .saturating_mul(rounds)
    }
}

/// Refuses what a parser would go too deep for: it recurses, and a stack that ends takes the host along.
/// Brackets lie in brackets, operators of one statement in each other, each `else if` in the one before.
fn depths(wgsl: &str) -> Result<(), String> {
    let text = without_comments(wgsl);
    let (mut brackets, mut operators) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => brackets += 1,
            b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
            byte if br"+-*/%&|^!~<>=.".contains(&byte) => operators += 1,
            _ => {}
        }
        if matches!(byte, b';' | b'{' | b'}') {
            operators = 0;
        }
        if brackets > NESTING {
            return Err(format!("brackets are nested deeper than {NESTING}"));
        }
        if operators > OPERATORS {
            return Err(format!(
                "a statement has more than {OPERATORS} operators; make it several"
            ));
        }
    }
    if text.matches("else").count() > ELSES {
        return Err(format!("`else` stands there more than {ELSES} times"));
    }
    Ok(())
}

/// The text without `//` to the end of a line and `/* */`, which may be nested (WGSL, section 3.3).
fn without_comments(wgsl: &str) -> String {
    let mut text = String::with_capacity(wgsl.len());
    let mut rest = wgsl;
    let mut depth = 0_usize;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("/*") {
            depth += 1;
            2
        } else if depth > 0 && rest.starts_with("*/") {
            depth -= 1;
            2
        } else if depth == 0 && rest.starts_with("//") {
            rest.find([
                '\n', '\u{b}', '\u{c}', '\r', '\u{85}', '\u{2028}', '\u{2029}',
            ])
            .unwrap_or(rest.len())
        } else {
            if depth == 0 {
                text.push(next);
            }
            next.len_utf8()
        };
        rest = rest.get(skipped..).unwrap_or_default();
    }
    text
}

/// Throws out all that one entry point does not use, and refuses what is not offered.
fn keep(module: &mut Module, entry: &str) -> Result<(), String> {
    if !module.overrides.is_empty() {
        return Err("`override` declarations are not offered; use a constant or a buffer".into());
    }
    let names: Vec<&str> = module
        .entry_points
        .iter()
        .map(|at| at.name.as_str())
        .collect();
    let known = names.join(", ");
    module.entry_points.retain(|at| at.name == entry);
    match module.entry_points.first() {
        None => return Err(format!("has no entry point `{entry}`, but: {known}")),
        Some(at) if at.stage != ShaderStage::Compute => {
            return Err(format!("`{entry}` is not a compute shader"));
        }
        Some(_) => {}
    }
    naga::compact::compact(module, naga::compact::KeepUnused::No);
    Ok(())
}

fn validate(module: &Module) -> Result<ModuleInfo, naga::WithSpan<naga::valid::ValidationError>> {
    Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(module)
}

fn slots(module: &Module) -> Result<BTreeMap<u32, Slot>, String> {
    let mut slots = BTreeMap::new();
    for (_, global) in module.global_variables.iter() {
        let name = global.name.as_deref().unwrap_or("a variable");
        let slot = match global.space {
            AddressSpace::Private | AddressSpace::WorkGroup => continue,
            AddressSpace::Uniform => Slot::Uniform,
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                Slot::Write
            }
            AddressSpace::Storage { .. } => Slot::Read,
            _ => {
                return Err(format!(
                    "`{name}`: only buffers are offered, no textures or samplers"
                ));
            }
        };
        let binding = global.binding.as_ref();
        let at = binding.filter(|at| at.group == 0 && at.binding < SLOTS);
        let Some(at) = at else {
            return Err(format!(
                "`{name}`: buffers lie in group 0, in slots below {SLOTS}"
            ));
        };
        if slots.insert(at.binding, slot).is_some() {
            return Err(format!("slot {} is used twice", at.binding));
        }
    }
    Ok(slots)
}

/// Drivers recurse over types too.
fn nested_types(module: &Module) -> Result<(), String> {
    let mut depths = BTreeMap::new();
    for (handle, ty) in module.types.iter() {
        // A type names only earlier ones.
        let of = |inner: &naga::Handle<naga::Type>| depths.get(inner).copied().unwrap_or(0);
        let depth = match &ty.inner {
            TypeInner::Array { base, .. } | TypeInner::Pointer { base, .. } => of(base),
            TypeInner::Struct { members, .. } => members
                .iter()
                .map(|member| of(&member.ty))
                .max()
                .unwrap_or(0),
            _ => 0,
        } + 1;
        if depth > TYPES {
            return Err(format!("types are nested deeper than {TYPES}"));
        }
        depths.insert(handle, depth);
    }
    Ok(())
}

/// What a thread and what a workgroup keep; the steps that it takes to zero what there is from the start.
fn variables(module: &Module) -> Result<u64, String> {
    let size = |ty| u64::from(size(module, &module.types[ty].inner));
    let mut private = 0_u64;
    let mut workgroup = 0_u64;
    let mut locals = 0_u64;
    for (_, global) in module.global_variables.iter() {
        match global.space {
            AddressSpace::Private => private += size(global.ty),
            AddressSpace::WorkGroup => workgroup += size(global.ty),
            _ => {}
        }
    }
    for function in functions(module) {
        locals += locals_of(module, function);
    }
    for (what, bytes) in [("a thread", private + locals), ("a workgroup", workgroup)] {
        if bytes > VARIABLES {
            return Err(format!(
                "the variables of {what} take {bytes} bytes; the most is {VARIABLES}"
            ));
        }
    }
    Ok((private + workgroup) / 4)
}

/// Bytes of a function's own variables, zeroed at each call.
fn locals_of(module: &Module, function: &Function) -> u64 {
    let locals = function.local_variables.iter();
    locals
        .map(|(_, local)| u64::from(size(module, &module.types[local.ty].inner)))
        .sum()
}

/// All functions, the entry point last; who is called comes before who calls.
fn functions(module: &Module) -> impl Iterator<Item = &Function> {
    let own = module.functions.iter().map(|(_, function)| function);
    own.chain(module.entry_points.iter().map(|entry| &entry.function))
}

fn size(module: &Module, inner: &TypeInner) -> u32 {
    let context = GlobalCtx {
        types: &module.types,
        constants: &module.constants,
        overrides: &module.overrides,
        global_expressions: &module.global_expressions,
    };
    inner.try_size(context).unwrap_or(u32::MAX)
}

/// The steps of the entry point, with those of all that it calls.
fn costs(module: &Module, info: &ModuleInfo) -> Result<u64, String> {
    let mut of = BTreeMap::new();
    for (handle, function) in module.functions.iter() {
        let steps = body(module, &info[handle], function, &of)?;
        of.insert(handle, steps);
    }
    body(
        module,
        info.get_entry_point(0),
        &module.entry_points[0].function,
        &of,
    )
}

fn body(
    module: &Module,
    info: &FunctionInfo,
    function: &Function,
    of: &BTreeMap<naga::Handle<Function>, u64>,
) -> Result<u64, String> {
    let mut steps = 1 + locals_of(module, function) / 4;
    // Counted once each: what a loop repeats is paid for in fuel, or it is a short one.
    let mut weights = Vec::with_capacity(function.expressions.len());
    for (handle, expression) in function.expressions.iter() {
        let bytes = size(module, info[handle].ty.inner_with(&module.types));
        if bytes > VALUE {
            return Err(format!(
                "a value of {bytes} bytes; the most is {VALUE}: read arrays by their elements"
            ));
        }
        let weight = match expression {
            Expression::Math { .. } | Expression::Load { .. } => 8,
            _ => 1,
        } * u64::from(1 + bytes / 16);
        weights.push(weight);
        steps = steps.saturating_add(weight);
    }
    repeated(function, &function.body, 1, &mut |statement, times| {
        let own = match statement {
            Statement::Call { function, .. } => of.get(function).copied().unwrap_or(STEPS),
            // Each case is compared, and for the default all of them again.
            Statement::Switch { cases, .. } => 1 + 2 * cases.len() as u64,
            Statement::Store { .. } => 8,
            Statement::Atomic { .. } | Statement::ControlBarrier(_) => 32,
            _ => 1,
        };
        steps = steps.saturating_add(own.saturating_mul(times));
        if let Statement::Emit(range) = statement {
            let weight = |at: naga::Handle<Expression>| weights.get(at.index()).copied();
            let again: u64 = range.clone().filter_map(weight).sum();
            steps = steps.saturating_add(again.saturating_mul(times - 1));
        }
    });
    if steps > STEPS {
        let name = function.name.as_deref().unwrap_or("the entry point");
        return Err(format!(
            "`{name}` with all that it calls is longer than {STEPS} steps"
        ));
    }
    Ok(steps)
}

/// Calls back for every statement, with how often short loops repeat it.
fn repeated(
    function: &Function,
    block: &Block,
    times: u64,
    each: &mut impl FnMut(&Statement, u64),
) {
    for statement in block {
        each(statement, times);
        let within = times * turns::turns(function, statement).unwrap_or(1);
        for inner in blocks(statement) {
            repeated(function, inner, within, each);
        }
    }
}

/// Calls back for every statement, those in blocks too.
fn walk(block: &Block, each: &mut impl FnMut(&Statement)) {
    for statement in block {
        each(statement);
        for inner in blocks(statement) {
            walk(inner, each);
        }
    }
}

/// The blocks in a statement.
fn blocks(statement: &Statement) -> Vec<&Block> {
    match statement {
        Statement::Block(block) => vec![block],
        Statement::If { accept, reject, .. } => vec![accept, reject],
        Statement::Switch { cases, .. } => cases.iter().map(|case| &case.body).collect(),
        Statement::Loop {
            body, continuing, ..
        } => vec![body, continuing],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
