//! A mail as callers write it in JSON.

use crank_worker::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::evidence::{Feature, Mail, evidence};

/// A mail.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Letter {
    /// What it says, plain or HTML.
    pub email_text: String,
    /// Its subject, decoded.
    #[serde(default)]
    pub subject: String,
    /// Its header block as it was sent (RFC 5322): who sent it on whose behalf, and who vouches for
    /// that.
    #[serde(default)]
    pub headers: String,
}

impl Letter {
    /// What it shows; `pointer` says where its text stands in the input.
    pub fn features(&self, pointer: &str) -> Result<Vec<Feature>, Failure> {
        let Self {
            email_text: text,
            subject,
            headers,
        } = self;
        if [text, subject, headers]
            .iter()
            .all(|part| part.trim().is_empty())
        {
            let message = "a mail needs a text, a subject or headers";
            return Err(Failure::invalid_input(pointer, message).code("empty"));
        }
        Ok(evidence(&Mail {
            subject,
            text,
            headers,
        }))
    }
}
