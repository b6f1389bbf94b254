//! Who goes the same way in all threads of a workgroup.
//!
//! A barrier that some threads reach and others do not may hang a GPU, and naga does not refuse all of
//! those. Here a value is uniform if it is made of nothing but constants, uniform buffers, read-only
//! buffers and the workgroup's own numbers; a place is uniform if only uniform values decide whether it
//! is reached. What is not known to be uniform counts as not uniform.

use std::collections::BTreeSet;

use naga::{
    AddressSpace, Binding, Block, BuiltIn, Expression, Function, Handle, LocalVariable, Module,
    Statement, StorageAccess,
};

use super::walk;

/// A loop: its function, `None` for the entry point, and its number there in the order of the text.
type LoopId = (Option<Handle<Function>>, usize);

/// Loops that all threads of a workgroup go through in step.
pub type Loops = BTreeSet<LoopId>;

/// Finds the loops that are uniform.
///
/// # Errors
///
/// A barrier that not all threads of a workgroup are sure to reach.
pub fn check(module: &Module) -> Result<Loops, String> {
    let mut waits = BTreeSet::new();
    let mut uniform = Loops::new();
    for (handle, function) in module.functions.iter() {
        if has_barrier(function, &waits) {
            waits.insert(handle);
        }
    }
    let entry = module
        .entry_points
        .first()
        .map(|entry| (None, &entry.function));
    let own = module
        .functions
        .iter()
        .map(|(handle, function)| (Some(handle), function));
    for (handle, function) in own.chain(entry) {
        let needs = handle.is_none_or(|handle| waits.contains(&handle));
        let mut flow = Flow::new(module, function, &waits);
        flow.settle();
        if flow.broken {
            let name = function.name.as_deref().unwrap_or("the entry point");
            return Err(format!(
                "`{name}` has a barrier that not all threads of a workgroup are sure to reach: what decides must \
                 not depend on the thread or on what threads write"
            ));
        }
        if needs {
            // A function without a barrier may be called by some threads only.
            let loops = (0..flow.loops).filter(|at| !flow.divergent.contains(at));
            uniform.extend(loops.map(|at| (handle, at)));
        }
    }
    Ok(uniform)
}

fn is_barrier(statement: &Statement, waits: &BTreeSet<Handle<Function>>) -> bool {
    match statement {
        Statement::ControlBarrier(_) | Statement::WorkGroupUniformLoad { .. } => true,
        Statement::Call { function, .. } => waits.contains(function),
        _ => false,
    }
}

fn has_barrier(function: &Function, waits: &BTreeSet<Handle<Function>>) -> bool {
    let mut found = false;
    walk(&function.body, &mut |statement| {
        found |= is_barrier(statement, waits)
    });
    found
}

/// Whether a `break` of the switch around it stands under a condition.
fn leaves_early(block: &Block, conditional: bool) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Break => conditional,
        Statement::Block(inner) => leaves_early(inner, conditional),
        Statement::If { accept, reject, .. } => {
            leaves_early(accept, true) || leaves_early(reject, true)
        }
        // A `break` in these leaves them.
        _ => false,
    })
}

/// One function's way.
struct Flow<'a> {
    module: &'a Module,
    function: &'a Function,
    waits: &'a BTreeSet<Handle<Function>>,
    /// Variables that may differ between threads.
    variables: BTreeSet<Handle<LocalVariable>>,
    /// Loops that threads may leave at different turns, or that not all reach.
    divergent: BTreeSet<usize>,
    /// Some threads may have returned.
    returned: bool,
    /// Values that may differ between threads, by the index of their expression.
    values: Vec<bool>,
    /// Loops seen in this pass.
    loops: usize,
    changed: bool,
    broken: bool,
}

/// Where a statement stands.
#[derive(Clone, Copy)]
struct Place {
    /// All threads get here, or none.
    uniform: bool,
    /// The loop around it, and whether all threads that are in that turn of it get here.
    around: Option<(usize, bool)>,
}

impl<'a> Flow<'a> {
    fn new(
        module: &'a Module,
        function: &'a Function,
        waits: &'a BTreeSet<Handle<Function>>,
    ) -> Self {
        Self {
            module,
            function,
            waits,
            variables: BTreeSet::new(),
            divergent: BTreeSet::new(),
            returned: false,
            values: vec![false; function.expressions.len()],
            loops: 0,
            changed: false,
            broken: false,
        }
    }

    /// Follows it until nothing new is found: what is found only grows.
    fn settle(&mut self) {
        loop {
            self.changed = false;
            self.broken = false;
            self.loops = 0;
            self.values();
            let function = self.function;
            let start = Place {
                uniform: !self.returned,
                around: None,
            };
            self.block(&function.body, start);
            if !self.changed {
                return;
            }
        }
    }

    fn differs(&self, value: Handle<Expression>) -> bool {
        self.values.get(value.index()).copied().unwrap_or(true)
    }

    /// What of each expression differs; an expression names only earlier ones.
    fn values(&mut self) {
        for (handle, expression) in self.function.expressions.iter() {
            let differs = self.value(expression);
            if let Some(value) = self.values.get_mut(handle.index()) {
                *value = differs;
            }
        }
    }

    fn value(&self, expression: &Expression) -> bool {
        let any = |all: &[Handle<Expression>]| all.iter().any(|&value| self.differs(value));
        match expression {
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::ZeroValue(_)
            | Expression::LocalVariable(_)
            | Expression::GlobalVariable(_)
            | Expression::ArrayLength(_)
            | Expression::WorkGroupUniformLoadResult { .. } => false,
            Expression::FunctionArgument(at) => !self.is_of_the_workgroup(*at),
            Expression::Load { pointer } => self.differs(*pointer) || self.memory_differs(*pointer),
            Expression::Compose { components, .. } => any(components),
            Expression::Access { base, index } => any(&[*base, *index]),
            Expression::AccessIndex { base, .. } => self.differs(*base),
            Expression::Splat { value, .. } => self.differs(*value),
            Expression::Swizzle { vector, .. } => self.differs(*vector),
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => self.differs(*expr),
            Expression::Binary { left, right, .. } => any(&[*left, *right]),
            Expression::Select {
                condition,
                accept,
                reject,
            } => any(&[*condition, *accept, *reject]),
            Expression::Relational { argument, .. } => self.differs(*argument),
            Expression::Math {
                arg,
                arg1,
                arg2,
                arg3,
                ..
            } => {
                let rest = [arg1, arg2, arg3];
                self.differs(*arg) || rest.into_iter().flatten().any(|&value| self.differs(value))
            }
            _ => true,
        }
    }

    /// The workgroup's number, and how many there are.
    fn is_of_the_workgroup(&self, argument: u32) -> bool {
        let argument = self.function.arguments.get(argument as usize);
        matches!(
            argument.and_then(|argument| argument.binding.as_ref()),
            Some(Binding::BuiltIn(
                BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups
            ))
        )
    }

    /// Whether threads may read different things at one address.
    fn memory_differs(&self, pointer: Handle<Expression>) -> bool {
        match self.root(pointer) {
            Some(Root::Local(local)) => self.variables.contains(&local),
            Some(Root::Global(space)) => match space {
                AddressSpace::Uniform => false,
                AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
                _ => true,
            },
            None => true,
        }
    }

    fn root(&self, pointer: Handle<Expression>) -> Option<Root> {
        match self.function.expressions[pointer] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                self.root(base)
            }
            Expression::LocalVariable(local) => Some(Root::Local(local)),
            Expression::GlobalVariable(global) => {
                Some(Root::Global(self.module.global_variables[global].space))
            }
            _ => None,
        }
    }

    fn store(&mut self, pointer: Handle<Expression>, differs: bool) {
        if differs && let Some(Root::Local(local)) = self.root(pointer) {
            self.changed |= self.variables.insert(local);
        }
    }

    fn diverge(&mut self, at: usize) {
        self.changed |= self.divergent.insert(at);
    }

    fn block(&mut self, block: &Block, place: Place) {
        for statement in block {
            self.statement(statement, place);
        }
    }

    fn statement(&mut self, statement: &Statement, place: Place) {
        if is_barrier(statement, self.waits) && !place.uniform {
            self.broken = true;
        }
        match statement {
            Statement::Block(block) => self.block(block, place),
            Statement::If {
                condition,
                accept,
                reject,
            } => {
                let inner = self.under(*condition, place);
                self.block(accept, inner);
                self.block(reject, inner);
            }
            Statement::Switch { selector, cases } => {
                let mut inner = self.under(*selector, place);
                // Where a case may be left half-way, by some threads perhaps, nothing in it is sure.
                if cases.iter().any(|case| leaves_early(&case.body, false)) {
                    inner.uniform = false;
                    inner.around = inner.around.map(|(at, _)| (at, false));
                }
                for case in cases {
                    self.block(&case.body, inner);
                }
            }
            Statement::Loop {
                body,
                continuing,
                break_if,
            } => self.repeat(body, continuing, *break_if, place),
            Statement::Break | Statement::Continue => {
                if let Some((around, false)) = place.around {
                    self.diverge(around);
                }
            }
            Statement::Return { .. } | Statement::Kill if !place.uniform => {
                self.changed |= !self.returned;
                self.returned = true;
            }
            Statement::Store { pointer, value } => {
                let differs = !place.uniform || self.differs(*pointer) || self.differs(*value);
                self.store(*pointer, differs);
            }
            // What is called may write through a pointer whatever it likes.
            Statement::Call { arguments, .. } => {
                for &argument in arguments {
                    self.store(argument, true);
                }
            }
            _ => {}
        }
    }

    fn under(&self, condition: Handle<Expression>, place: Place) -> Place {
        let same = !self.differs(condition);
        Place {
            uniform: place.uniform && same,
            around: place.around.map(|(at, all)| (at, all && same)),
        }
    }

    fn repeat(
        &mut self,
        body: &Block,
        continuing: &Block,
        break_if: Option<Handle<Expression>>,
        place: Place,
    ) {
        let own = self.loops;
        self.loops += 1;
        if !place.uniform || break_if.is_some_and(|condition| self.differs(condition)) {
            self.diverge(own);
        }
        let same = !self.divergent.contains(&own);
        let inner = Place {
            uniform: place.uniform && same,
            around: Some((own, true)),
        };
        self.block(body, inner);
        self.block(continuing, inner);
    }
}

/// What a pointer points into.
enum Root {
    Local(Handle<LocalVariable>),
    Global(AddressSpace),
}
