//! `Crank-Path`: the hosts that a call was forwarded by. No call goes in a circle, or on for ever.

use super::Remotes;
use crate::error::{Code, Failure};
use crate::identity::is_controller_id;

/// Times that a call is forwarded.
pub const MAX_HOPS: usize = 4;
/// Longest header, in bytes.
const MAX_BYTES: usize = 1024;

/// Reads the header.
///
/// # Errors
///
/// It is no list of controllers' ids.
pub fn read_path(header: &str) -> Result<Vec<String>, Failure> {
    let ids: Vec<String> = header.split(',').map(|id| id.trim().to_owned()).collect();
    if header.len() > MAX_BYTES || !ids.iter().all(|id| is_controller_id(id)) {
        let message = "crank-path is a list of the ids of the hosts that forwarded the call, with commas between";
        return Err(Failure::new(Code::InvalidRequest, message));
    }
    Ok(ids)
}

impl Remotes {
    /// Whether a call that came this way may be served here.
    ///
    /// # Errors
    ///
    /// `loop-detected`: it was here before, or was forwarded too often.
    pub fn check_path(&self, path: &[String]) -> Result<(), Failure> {
        let looped = |message: String| Err(Failure::new(Code::LoopDetected, message));
        if path.iter().any(|id| id == self.controller_id()) {
            return looped(format!(
                "the call has been at this host before: {}",
                path.join(", ")
            ));
        }
        if path.len() > MAX_HOPS {
            return looped(format!(
                "the call was forwarded {} times, {MAX_HOPS} is the most",
                path.len()
            ));
        }
        Ok(())
    }

    /// The way of a call that is forwarded from here.
    ///
    /// # Errors
    ///
    /// `loop-detected`: it was forwarded as often as may be.
    pub fn onward(&self, path: &[String]) -> Result<Vec<String>, Failure> {
        if path.len() >= MAX_HOPS {
            let message = format!(
                "the call was forwarded {MAX_HOPS} times already, and only a remote worker offers what it asks for"
            );
            return Err(Failure::new(Code::LoopDetected, message));
        }
        let mut path = path.to_vec();
        path.push(self.controller_id().to_owned());
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_passes_a_host_once_and_four_at_most() {
        let remotes = Remotes::none();
        let own = remotes.controller_id().to_owned();
        let code = |path: &[String]| remotes.check_path(path).unwrap_err().code;
        let others: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        assert_eq!(remotes.onward(&others[..3]).unwrap()[3], own);
        assert_eq!(
            remotes.onward(&others[..4]).unwrap_err().code,
            Code::LoopDetected
        );
        remotes.check_path(&others[..4]).unwrap();
        assert_eq!(code(&others), Code::LoopDetected);
        assert_eq!(code(&[own]), Code::LoopDetected);
        assert_eq!(read_path("a, b.c-1").unwrap(), ["a", "b.c-1"]);
        for header in ["", "a,,b", "a b", &"x".repeat(2000)] {
            assert!(read_path(header).is_err(), "{header:.20} was accepted");
        }
    }
}
