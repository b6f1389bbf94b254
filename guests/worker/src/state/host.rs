//! The host's state, through `wasi:keyvalue`.

use bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use bindings::wasi::keyvalue::batch;
use bindings::wasi::keyvalue::store::{self, Bucket, Error};

use crate::Failure;

/// Apart from the contract's: of these types not all can be compared.
#[allow(missing_docs)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package crank:helper-state;

            world guest {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
        ",
        world: "crank:helper-state/guest",
        generate_all,
    });
}

type Change<'a> = &'a mut dyn FnMut(Option<Vec<u8>>) -> Result<Vec<u8>, Failure>;

pub(super) struct Store(Bucket);

impl Store {
    pub fn open(name: &str) -> Result<Self, Failure> {
        let opened = store::open(name).map_err(|error| match error {
            Error::AccessDenied => Failure::failed(format!(
                "the capability does not declare the bucket `{name}`"
            )),
            error => failure(error),
        });
        opened.map(Self)
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.0.get(key).map_err(failure)
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        self.0.set(key, value).map_err(failure)
    }

    pub fn delete(&self, key: &str) -> Result<(), Failure> {
        self.0.delete(key).map_err(failure)
    }

    pub fn exists(&self, key: &str) -> Result<bool, Failure> {
        self.0.exists(key).map_err(failure)
    }

    pub fn page(&self, after: Option<&str>) -> Result<(Vec<String>, Option<String>), Failure> {
        let page = self.0.list_keys(after).map_err(failure)?;
        Ok((page.keys, page.cursor))
    }

    pub fn update(&self, key: &str, change: Change<'_>) -> Result<Vec<u8>, Failure> {
        let mut cas = Cas::new(&self.0, key).map_err(failure)?;
        // It comes to an end: whenever this one fails, another has got through.
        loop {
            let value = change(cas.current().map_err(failure)?)?;
            cas = match atomics::swap(cas, &value) {
                Ok(()) => return Ok(value),
                Err(CasError::CasFailed(again)) => again,
                Err(CasError::StoreError(error)) => return Err(failure(error)),
            };
        }
    }

    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, Failure> {
        atomics::increment(&self.0, key, delta).map_err(failure)
    }

    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let entries = batch::get_many(&self.0, keys).map_err(failure)?;
        let values = entries.into_iter().map(|entry| Some(entry?.1));
        Ok(values.collect())
    }

    pub fn set_many(&self, entries: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        batch::set_many(&self.0, entries).map_err(failure)
    }

    pub fn delete_many(&self, keys: &[String]) -> Result<(), Failure> {
        batch::delete_many(&self.0, keys).map_err(failure)
    }
}

fn failure(error: Error) -> Failure {
    Failure::failed(match error {
        Error::NoSuchStore => "there is no such bucket".to_owned(),
        Error::AccessDenied => "the capability may not write to this bucket".to_owned(),
        Error::Other(why) => format!("the state refuses: {why}"),
    })
}
