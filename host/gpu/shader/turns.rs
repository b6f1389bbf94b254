//! Which loops are known to take few turns: those need no fuel, and count as if written out.
//!
//! `for (var i = 0u; i < 3u; i++)` is one: the first thing in every turn is the comparison with a
//! constant, its variable grows by one at every turn's end, and nothing else in the loop writes it.
//! It holds no call and no loop but such ones.

use naga::{
    BinaryOperator, Block, Expression, Function, Handle, Literal, LocalVariable, Statement,
};

use super::{blocks, walk};

/// How many turns loops in loops may take together without fuel. More would make a shader longer than it
/// may be.
const FEW: u64 = 64;

/// How many turns a loop takes at most, with the last look at its condition, if it needs no fuel.
pub fn turns(function: &Function, statement: &Statement) -> Option<u64> {
    few(function, statement, FEW)
}

fn few(function: &Function, statement: &Statement, most: u64) -> Option<u64> {
    let Statement::Loop {
        body, continuing, ..
    } = statement
    else {
        return None;
    };
    let (counter, limit) = condition(function, body)?;
    let turns = u64::from(limit) + 1;
    (turns <= most
        && grows(function, continuing, counter)
        && writes(function, statement, counter) == 1
        && fits(function, body, most / turns)
        && fits(function, continuing, most / turns))
    .then_some(turns)
}

/// Whether a block has no call, and no loop but those of few turns.
fn fits(function: &Function, block: &Block, most: u64) -> bool {
    block.iter().all(|statement| match statement {
        Statement::Call { .. } => false,
        Statement::Loop { .. } => few(function, statement, most).is_some(),
        _ => blocks(statement)
            .into_iter()
            .all(|inner| fits(function, inner, most)),
    })
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

/// How many statements write the variable.
fn writes(function: &Function, statement: &Statement, counter: Handle<LocalVariable>) -> usize {
    let mut writes = 0;
    for block in blocks(statement) {
        walk(block, &mut |statement| {
            writes += usize::from(matches!(
                statement,
                Statement::Store { pointer, .. } if is(function, *pointer, counter)
            ));
        });
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
