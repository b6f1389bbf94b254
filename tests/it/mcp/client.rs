//! A client of the protocol, as small as the tests need: JSON-RPC over HTTP, in a session or without.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::Host;

/// The version without sessions.
pub const CURRENT: &str = "2026-07-28";
/// The last one with sessions.
pub const PREVIOUS: &str = "2025-11-25";

pub struct Client<'a> {
    host: &'a Host,
    /// Absent: the client speaks the current version.
    pub session: Option<String>,
    ids: AtomicU64,
}

/// What came back for one request, in order; the answer is the last.
pub struct Told(pub Vec<Value>);

impl<'a> Client<'a> {
    pub fn current(host: &'a Host) -> Self {
        let ids = AtomicU64::new(1);
        Self {
            host,
            session: None,
            ids,
        }
    }

    pub async fn previous(host: &'a Host) -> Self {
        let mut client = Self::current(host);
        let params = json!({
            "protocolVersion": PREVIOUS,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        });
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let request = client
            .request(Method::POST)
            .header("mcp-protocol-version", PREVIOUS);
        let response = request.json(&message).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        client.session = Some(
            response.headers()["mcp-session-id"]
                .to_str()
                .unwrap()
                .to_owned(),
        );
        let told = Told::read(response).await;
        assert_eq!(told.answer()["result"]["protocolVersion"], PREVIOUS);
        assert_eq!(
            client.notify("notifications/initialized", json!({})).await,
            StatusCode::ACCEPTED
        );
        client
    }

    fn request(&self, method: Method) -> RequestBuilder {
        let accept = "application/json, text/event-stream";
        let request = self
            .host
            .client
            .request(method, self.host.url("/mcp"))
            .header("accept", accept);
        match &self.session {
            Some(session) => request
                .header("mcp-session-id", session)
                .header("mcp-protocol-version", PREVIOUS),
            None => request,
        }
    }

    /// Sends a request; the response may still be on its way.
    pub async fn send(&self, id: u64, method: &str, mut params: Value) -> Response {
        let mut request = self.request(Method::POST);
        if self.session.is_none() {
            let meta = params
                .as_object_mut()
                .unwrap()
                .entry("_meta")
                .or_insert(json!({}));
            meta["io.modelcontextprotocol/protocolVersion"] = CURRENT.into();
            meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
            request = request
                .header("mcp-protocol-version", CURRENT)
                .header("mcp-method", method);
            if let Some(name) = params.get("name").or(params.get("uri")) {
                request = request.header("mcp-name", name.as_str().unwrap());
            }
        }
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        request.json(&message).send().await.expect("an answer")
    }

    pub async fn ask(&self, method: &str, params: Value) -> Told {
        let id = self.ids.fetch_add(1, Relaxed);
        let told = Told::read(self.send(id, method, params).await).await;
        assert_eq!(told.answer()["id"], id, "{:?}", told.0);
        told
    }

    /// The result of a request that must succeed.
    pub async fn result(&self, method: &str, params: Value) -> Value {
        let told = self.ask(method, params).await;
        told.answer()["result"].clone()
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.result("tools/call", json!({"name": tool, "arguments": arguments}))
            .await
    }

    pub async fn notify(&self, method: &str, params: Value) -> StatusCode {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        let sent = self.request(Method::POST).json(&message).send().await;
        sent.expect("an answer").status()
    }

    /// Opens the stream of what the host tells unasked.
    pub async fn open(&self) -> Response {
        self.request(Method::GET).send().await.expect("an answer")
    }

    pub async fn close(&self) -> StatusCode {
        let sent = self.request(Method::DELETE).send().await;
        sent.expect("an answer").status()
    }
}

impl Told {
    pub async fn read(response: Response) -> Self {
        let is_stream = response.headers()["content-type"] == "text/event-stream";
        let text = response.text().await.expect("text");
        if !is_stream {
            return Self(vec![serde_json::from_str(&text).expect("JSON")]);
        }
        Self(messages(&text))
    }

    pub fn answer(&self) -> &Value {
        self.0.last().expect("an answer")
    }

    /// The messages of the progress notifications.
    pub fn progress(&self) -> Vec<&Value> {
        let told = self
            .0
            .iter()
            .filter(|message| message["method"] == "notifications/progress");
        told.map(|message| &message["params"]).collect()
    }
}

/// The JSON in the data of events.
pub fn messages(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter(|data| !data.trim().is_empty())
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect()
}

/// Reads a stream until it has told something of this method.
pub async fn until(response: &mut Response, method: &str) -> Value {
    let mut stream = String::new();
    loop {
        let chunk = response.chunk().await.expect("no error").expect("no end");
        stream.push_str(std::str::from_utf8(&chunk).expect("text"));
        let found = messages(&stream)
            .into_iter()
            .find(|message| message["method"] == method);
        if let Some(message) = found {
            return message;
        }
    }
}
