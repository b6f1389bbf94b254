//! Who sent a request: looked at before any route, once.
//!
//! Source of the challenges: RFC 6750, section 3.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONNECTION, WWW_AUTHENTICATE,
};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};

use super::Settings;
use super::edge::Address;
use super::invoke::single;
use super::problem::Refusal;
use super::standing::Shown;
use crate::auth::{Auth, Peer, Unknown};
use crate::error::{Code, Failure};
use crate::identity::{Caller, SpiffeId};
use crate::limits::{Callers, Turn, Who};

/// What a request without credentials is told, one with some that do not hold, and one with several.
const MISSING: &str = "Bearer realm=\"crank\"";
const INVALID: &str =
    "Bearer realm=\"crank\", error=\"invalid_token\", error_description=\"it does not hold here\"";
const SEVERAL: &str = "Bearer realm=\"crank\", error=\"invalid_request\", error_description=\"authorization stands twice\"";

/// Signatures of tokens that do not hold which are verified for one address, per second and at once.
const VAIN_RATE: u32 = 10;
const VAIN_BURST: u32 = 100;

/// What changes the host, or tells of all its callers and workers.
const OPERATED: [&str; 5] = ["/reload", "/workers", "/slo", "/costs", "/metrics"];

/// What a host that forwards a call says of who calls, and of who began the chain where that is another.
pub(super) const CALLER: HeaderName = HeaderName::from_static("crank-caller");
pub(super) const ORIGIN: HeaderName = HeaderName::from_static("crank-origin");

/// Who began the chain of a call, where a host says so whose word counts.
#[derive(Clone)]
struct Origin(SpiffeId);

/// Who calls, and what proves it.
pub(super) struct Known {
    pub caller: Arc<Caller>,
    pub shown: Shown,
}

/// How callers prove who they are, and what is open without.
pub(super) struct Credentials {
    auth: Option<Arc<Auth>>,
    open_metrics: bool,
    /// What each address may have verified in vain.
    vain: Option<Callers>,
}

impl Credentials {
    pub fn new(settings: &Settings) -> Self {
        Self {
            auth: settings.auth.clone(),
            open_metrics: settings.open_metrics,
            vain: Callers::new(VAIN_RATE, VAIN_BURST, 0),
        }
    }

    /// What proves who calls, where callers must.
    pub fn auth(&self) -> Option<&Auth> {
        self.auth.as_deref().filter(|auth| auth.is_required())
    }

    /// Whether who calls may run this host. Where nobody needs to say who calls, whoever gets here may.
    pub fn may_operate(&self, caller: Option<&Caller>) -> bool {
        let Some(auth) = self.auth() else { return true };
        caller.is_some_and(|caller| auth.may_operate(caller))
    }

    /// Refuses what is the operators' to anybody else.
    pub fn check_operator(
        &self,
        caller: Option<&Caller>,
        request: &Request,
    ) -> Result<(), Failure> {
        let path = request.uri().path();
        if !OPERATED.contains(&path) || self.is_open(request) || self.may_operate(caller) {
            return Ok(());
        }
        let message = format!("{path} is for those who stand in identity.operators");
        Err(Failure::new(Code::Denied, message))
    }

    /// Who calls, for the handlers too; or the refusal. None: nobody needs to say.
    pub fn admit(
        &self,
        request: &mut Request,
        address: Address,
    ) -> Result<Option<Known>, Response> {
        let auth = self.auth.as_ref().filter(|auth| auth.is_required());
        let Some(auth) = auth.filter(|_| !self.is_open(request)) else {
            return Ok(None);
        };
        let peer = request.extensions().get::<Arc<Peer>>().cloned();
        let mut given = request.headers().get_all(AUTHORIZATION).iter();
        let authorization = given.next().cloned();
        if given.next().is_some() {
            let message = "the header authorization stands twice; it may stand once";
            let failure = Failure::new(Code::InvalidRequest, message);
            return Err(refusal(failure, SEVERAL, false));
        }
        let bearer = authorization.as_ref().map(HeaderValue::as_bytes);
        let turn = self.turn(auth, bearer, address);
        let turn = turn.map_err(|failure| Refusal(failure).into_response())?;
        match auth.caller(peer.as_deref(), bearer) {
            Ok(shows) => {
                if let (Some(vain), Some(turn)) = (&self.vain, turn) {
                    vain.give_back(turn);
                }
                let caller = match on_behalf(auth, &shows, request) {
                    Ok(behalf) => behalf.unwrap_or_else(|| shows.clone()),
                    Err(failure) => return Err(Refusal(failure).into_response()),
                };
                request.extensions_mut().insert(caller.clone());
                let shown = Shown {
                    auth: auth.clone(),
                    peer,
                    authorization,
                    caller: shows,
                };
                Ok(Some(Known { caller, shown }))
            }
            Err(Unknown::Missing) => {
                let message = "who calls is not known; send authorization: Bearer TOKEN, or show a certificate";
                let failure = Failure::new(Code::Unauthenticated, message);
                Err(refusal(failure, MISSING, false))
            }
            Err(Unknown::Invalid(reason)) => {
                let failure =
                    Failure::new(Code::Unauthenticated, "the credentials do not hold here");
                // A connection whose certificate no longer holds ends: the next handshake says so too.
                Err(refusal(failure.with_cause(reason), INVALID, peer.is_some()))
            }
        }
    }

    /// An address's turn to have a signature verified, which costs the host more than the sender. One that holds is
    /// given back; who is known already needs none.
    fn turn(
        &self,
        auth: &Auth,
        bearer: Option<&[u8]>,
        Address(address): Address,
    ) -> Result<Option<Turn>, Failure> {
        let Some(vain) = self.vain.as_ref().filter(|_| !auth.is_quick(bearer)) else {
            return Ok(None);
        };
        let turn = vain.admit(Who::of(None, address));
        turn.map(Some).map_err(|wait| {
            let message = "too many tokens that do not hold came from this address; wait";
            Failure::new(Code::RateLimited, message).retry_after(wait)
        })
    }

    /// Probes have no credentials, and learn nothing. Nor has what a browser asks before it sends them.
    fn is_open(&self, request: &Request) -> bool {
        match request.uri().path() {
            "/healthz" | "/readyz" => true,
            "/metrics" => self.open_metrics,
            _ => {
                request.method() == Method::OPTIONS
                    && request
                        .headers()
                        .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            }
        }
    }
}

/// The id of who sent a request, where the host asks for it.
pub(super) fn id(extensions: &Extensions) -> Option<String> {
    let caller = extensions.get::<Arc<Caller>>()?;
    Some(caller.id.to_string())
}

/// The id of who began the chain of a call, where a host says so whose word counts.
pub(super) fn origin(extensions: &Extensions) -> Option<String> {
    let Origin(id) = extensions.get()?;
    Some(id.to_string())
}

/// For whom a host forwards a call, if its word counts. Anybody else calls in their own name, whatever they say, and so
/// does a host for anything but a call.
fn on_behalf(
    auth: &Auth,
    host: &Caller,
    request: &mut Request,
) -> Result<Option<Arc<Caller>>, Failure> {
    if !auth.may_forward(host) || !request.uri().path().starts_with("/invoke/") {
        return Ok(None);
    }
    let named = |name: &HeaderName, headers: &HeaderMap| {
        let Some(text) = single(headers, name)? else {
            return Ok(None);
        };
        let id = auth.member(text).map_err(|reason| {
            Failure::new(Code::InvalidRequest, format!("the header {name}: {reason}"))
        });
        id.map(Some)
    };
    let origin = named(&ORIGIN, request.headers())?;
    let caller = named(&CALLER, request.headers())?;
    if let Some(origin) = origin {
        request.extensions_mut().insert(Origin(origin));
    }
    Ok(caller.map(|id| {
        Arc::new(Caller {
            id,
            proof: host.proof,
            via: Some(host.id.clone()),
        })
    }))
}

fn refusal(failure: Failure, challenge: &'static str, ends: bool) -> Response {
    let mut response = Refusal(failure).into_response();
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    if ends {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
