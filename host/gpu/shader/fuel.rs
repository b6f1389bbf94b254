//! The meter: every turn of every loop takes one of the thread's fuel, and who has none left leaves.
//! Loops that are known to take few turns are left as they are (`turns`).
//!
//! What a thread computes after that is not worth reading; it says so in the meter's buffer, and the
//! host answers `gpu-limit` instead of the result.

use naga::{
    AddressSpace, BinaryOperator, Block, Expression, Function, GlobalVariable, Handle, Literal,
    MemoryDecorations, Module, ResourceBinding, Scalar, Span, Statement, StorageAccess,
    StructMember, Type, TypeInner,
};

use super::turns::turns;
use super::uniform::Loops;

/// The bind group of the meter's buffer: how much fuel there is, then whether any thread ran out.
pub const METER_GROUP: u32 = 1;

/// What the meter added to the module.
struct Meter {
    buffer: Handle<GlobalVariable>,
    /// Fuel for loops whose turns differ between threads.
    own: Handle<GlobalVariable>,
    /// Fuel for loops that a whole workgroup goes through in step: all threads have the same left, and
    /// leave at the same turn, so that barriers in and after them stay sound.
    shared: Handle<GlobalVariable>,
}

/// Gives fuel to the loops, and returns how many counters that takes at most: none, if there is no loop.
pub fn meter(module: &mut Module, loops: &Loops) -> Result<u64, String> {
    let all: usize = super::functions(module).map(count).sum();
    if all == 0 {
        return Ok(0);
    }
    let meter = Meter::add(module);
    let names: Vec<_> = module.functions.iter().map(|(handle, _)| handle).collect();
    for handle in names {
        metered(&mut module.functions[handle], Some(handle), &meter, loops);
    }
    let entry = module
        .entry_points
        .first_mut()
        .ok_or("has no entry point")?;
    metered(&mut entry.function, None, &meter, loops);
    meter.fill(&mut entry.function);
    let shared = loops.len();
    Ok(u64::from(shared > 0) + u64::from(all > shared))
}

fn count(function: &Function) -> usize {
    let mut loops = 0;
    super::walk(&function.body, &mut |statement| {
        loops += usize::from(matches!(statement, Statement::Loop { .. }));
    });
    loops
}

impl Meter {
    fn add(module: &mut Module) -> Self {
        let named = |name: &str, inner| Type {
            name: Some(name.to_owned()),
            inner,
        };
        let u32 = module.types.insert(
            Type {
                name: None,
                inner: TypeInner::Scalar(Scalar::U32),
            },
            Span::UNDEFINED,
        );
        let atomic = module.types.insert(
            Type {
                name: None,
                inner: TypeInner::Atomic(Scalar::U32),
            },
            Span::UNDEFINED,
        );
        let member = |name: &str, ty, offset| StructMember {
            name: Some(name.to_owned()),
            ty,
            binding: None,
            offset,
        };
        let members = vec![member("fuel", u32, 0), member("spent", atomic, 4)];
        let ty = module.types.insert(
            named("CrankMeter", TypeInner::Struct { members, span: 8 }),
            Span::UNDEFINED,
        );
        let mut global = |name: &str, space, binding, ty| {
            let global = GlobalVariable {
                name: Some(name.to_owned()),
                space,
                binding,
                ty,
                init: None,
                memory_decorations: MemoryDecorations::empty(),
            };
            module.global_variables.append(global, Span::UNDEFINED)
        };
        let storage = AddressSpace::Storage {
            access: StorageAccess::LOAD | StorageAccess::STORE,
        };
        let binding = ResourceBinding {
            group: METER_GROUP,
            binding: 0,
        };
        Self {
            buffer: global("crank_meter", storage, Some(binding), ty),
            own: global("crank_fuel", AddressSpace::Private, None, u32),
            shared: global("crank_shared_fuel", AddressSpace::Private, None, u32),
        }
    }

    /// At the entry point's start: the counters are filled.
    fn fill(&self, function: &mut Function) {
        let mut code = Code::new(function);
        let buffer = code.add(Expression::GlobalVariable(self.buffer));
        let pointer = code.emit(Expression::AccessIndex {
            base: buffer,
            index: 0,
        });
        let fuel = code.emit(Expression::Load { pointer });
        for counter in [self.own, self.shared] {
            let pointer = code.add(Expression::GlobalVariable(counter));
            code.push(Statement::Store {
                pointer,
                value: fuel,
            });
        }
        let Code { mut block, .. } = code;
        block.append(&mut function.body);
        function.body = block;
    }

    /// At the start of a turn: one less, or out.
    fn turn(&self, function: &mut Function, counter: Handle<GlobalVariable>) -> Block {
        let mut out = Code::new(function);
        let buffer = out.add(Expression::GlobalVariable(self.buffer));
        let spent = out.emit(Expression::AccessIndex {
            base: buffer,
            index: 1,
        });
        let one = out.add(Expression::Literal(Literal::U32(1)));
        out.push(Statement::Store {
            pointer: spent,
            value: one,
        });
        out.push(Statement::Break);
        let out = out.block;

        let mut code = Code::new(function);
        let pointer = code.add(Expression::GlobalVariable(counter));
        let left = code.emit(Expression::Load { pointer });
        let zero = code.add(Expression::Literal(Literal::U32(0)));
        let condition = code.emit(Expression::Binary {
            op: BinaryOperator::Equal,
            left,
            right: zero,
        });
        code.push(Statement::If {
            condition,
            accept: out,
            reject: Block::new(),
        });
        let one = code.add(Expression::Literal(Literal::U32(1)));
        let value = code.emit(Expression::Binary {
            op: BinaryOperator::Subtract,
            left,
            right: one,
        });
        code.push(Statement::Store { pointer, value });
        code.block
    }
}

/// Code as it is added to a function.
struct Code<'a> {
    function: &'a mut Function,
    block: Block,
}

impl<'a> Code<'a> {
    fn new(function: &'a mut Function) -> Self {
        Self {
            function,
            block: Block::new(),
        }
    }

    /// An expression that is there without being computed.
    fn add(&mut self, expression: Expression) -> Handle<Expression> {
        self.function
            .expressions
            .append(expression, Span::UNDEFINED)
    }

    /// One that is computed here.
    fn emit(&mut self, expression: Expression) -> Handle<Expression> {
        let handle = self.add(expression);
        self.push(Statement::Emit(naga::Range::new_from_bounds(
            handle, handle,
        )));
        handle
    }

    fn push(&mut self, statement: Statement) {
        self.block.push(statement, Span::UNDEFINED);
    }
}

/// Puts the meter into every loop of a function.
fn metered(
    function: &mut Function,
    handle: Option<Handle<Function>>,
    meter: &Meter,
    loops: &Loops,
) {
    let mut body = std::mem::take(&mut function.body);
    let mut number = 0;
    repeat(
        &mut body,
        function,
        &mut number,
        &|at| match loops.contains(&(handle, at)) {
            true => meter.shared,
            false => meter.own,
        },
        meter,
    );
    function.body = body;
}

fn repeat(
    block: &mut Block,
    function: &mut Function,
    number: &mut usize,
    counter: &impl Fn(usize) -> Handle<GlobalVariable>,
    meter: &Meter,
) {
    for statement in block.iter_mut() {
        let short = turns(function, statement).is_some();
        match statement {
            Statement::Block(inner) => repeat(inner, function, number, counter, meter),
            Statement::If { accept, reject, .. } => {
                repeat(accept, function, number, counter, meter);
                repeat(reject, function, number, counter, meter);
            }
            Statement::Switch { cases, .. } => {
                for case in cases {
                    repeat(&mut case.body, function, number, counter, meter);
                }
            }
            Statement::Loop {
                body, continuing, ..
            } => {
                // Numbered as `uniform` numbers them: before what is in them.
                let own = counter(*number);
                *number += 1;
                repeat(body, function, number, counter, meter);
                repeat(continuing, function, number, counter, meter);
                if !short {
                    let mut turn = meter.turn(function, own);
                    turn.append(body);
                    *body = turn;
                }
            }
            _ => {}
        }
    }
}
