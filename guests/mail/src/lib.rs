//! What the workers for mail share: a mail ([`Letter`]) and what it shows ([`evidence`]), models that weigh it
//! ([`Model`]), what a caller teaches ([`Learned`]), and the way out of the sandbox ([`outside`]).
//!
//! Only this crate normalises text, and only `outside` knows the host.

mod evidence;
mod folding;
mod headers;
mod html;
mod learned;
mod letter;
mod model;
pub mod outside;
mod words;

pub use evidence::{Feature, Mail, evidence, shorten};
pub use learned::{Learned, Taught};
pub use letter::Letter;
pub use model::{Model, Reason, Weighed, probability, write};
