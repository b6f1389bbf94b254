//! Which loops are known to take few turns: those need no fuel, and count as if written out.
//!
//! `for (var i = 0u; i < 3u; i++)` is one: the first thing in every turn is the comparison with a
//! constant, its variable grows by one at every turn's end, and nothing else in the loop writes it.

use naga::{
    BinaryOperator, Block, Expression, Function, Handle, Literal, LocalVariable, Statement,
};

use super::walk;

/// How many turns loops in loops may take together without fuel. More would make a shader longer than it
/// may be.
const FEW: u64 = 64;

/// How often what a statement holds runs at most, `around` times already by the loops around it: of a loop
/// without fuel its turns and the last look at its condition, of everything else once.
pub fn turns(function: &Function, statement: &Statement, around: u64) -> Option<u64> {
    let Statement::Loop {
        body, continuing, ..
    } = statement
    else {
        return None;
    };
    let (counter, limit) = condition(function, body)?;
    let turns = u64::from(limit) + 1;
    let few = turns.checked_mul(around).is_some_and(|all| all <= FEW);
    (few && grows(function, continuing, counter) && writes(function, statement, counter) == 1)
        .then_some(turns)
}

/// The variable and the constant that the body compares first.
fn condition(function: &Function, body: &Block) -> Option<(Handle<LocalVariable>, u32)> {
    let first = body
        .iter()
        .position(|statement| !matches!(statement, Statement::Emit(_)))?;
    let Statement::If {
        condition, reject, ..
    } = body.get(first)?
    else {
        return None;
    };
    let Expression::Binary {
        op: BinaryOperator::Less,
        left,
        right,
    } = function.expressions[*condition]
    else {
        return None;
    };
    let leaves = matches!(reject.first(), Some(Statement::Break));
    match function.expressions[right] {
        Expression::Literal(Literal::U32(limit)) if leaves && computes(body, left) => {
            Some((loaded(function, left)?, limit))
        }
        _ => None,
    }
}

/// Whether a turn's end adds one to the variable, as it is then.
fn grows(function: &Function, continuing: &Block, counter: Handle<LocalVariable>) -> bool {
    continuing.iter().any(|statement| {
        let Statement::Store { pointer, value } = *statement else {
            return false;
        };
        let Expression::Binary {
            op: BinaryOperator::Add,
            left,
            right,
        } = function.expressions[value]
        else {
            return false;
        };
        is(function, pointer, counter)
            && matches!(
                function.expressions[right],
                Expression::Literal(Literal::U32(1))
            )
            && loaded(function, left) == Some(counter)
            && computes(continuing, left)
    })
}

/// How many statements write the variable, or might.
fn writes(function: &Function, statement: &Statement, counter: Handle<LocalVariable>) -> usize {
    let mut writes = 0;
    let mut look = |statement: &Statement| {
        writes += usize::from(match statement {
            Statement::Store { pointer, .. } => is(function, *pointer, counter),
            Statement::Call { arguments, .. } => arguments
                .iter()
                .any(|argument| is(function, *argument, counter)),
            _ => false,
        });
    };
    for block in super::blocks(statement) {
        walk(block, &mut look);
    }
    writes
}

/// Whether the block itself computes an expression, so that it is of this turn and not of an earlier time.
fn computes(block: &Block, value: Handle<Expression>) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Emit(range) => range.clone().any(|handle| handle == value),
        _ => false,
    })
}

/// The variable that an expression loads.
fn loaded(function: &Function, value: Handle<Expression>) -> Option<Handle<LocalVariable>> {
    match function.expressions[value] {
        Expression::Load { pointer } => match function.expressions[pointer] {
            Expression::LocalVariable(variable) => Some(variable),
            _ => None,
        },
        _ => None,
    }
}

fn is(function: &Function, pointer: Handle<Expression>, variable: Handle<LocalVariable>) -> bool {
    matches!(function.expressions[pointer], Expression::LocalVariable(of) if of == variable)
}
