//! Sessions of clients whose version of the protocol has them (before 2026-07-28), bounded in number and in
//! idle time. Each is its caller's: an id that leaks opens nothing to another.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{SessionId, SessionManager};
use tokio::sync::watch;

/// Sessions that are open at once. One more ends one of the caller who has the most, that which was used longest
/// ago: its client is told so (404) at its next request and begins another.
const SESSIONS: usize = 256;
/// A session in which nothing was asked and nothing told for this long ends. People leave an editor open
/// over lunch.
const IDLE: Duration = Duration::from_secs(3600);

pub(in crate::api) struct Sessions {
    local: LocalSessionManager,
    used: Mutex<HashMap<SessionId, Used>>,
    stopping: watch::Receiver<()>,
}

/// A session that is open.
struct Used {
    /// When it was used last.
    last: Instant,
    /// Who began it, where the host knows.
    owner: Option<String>,
}

tokio::task_local! {
    /// Who sends what is being handled. The SDK does not say it to who keeps its sessions.
    pub(super) static CALLER: Option<String>;
}

type Failed = <LocalSessionManager as SessionManager>::Error;

impl Sessions {
    pub fn new(stopping: watch::Receiver<()>) -> Self {
        let mut local = LocalSessionManager::default();
        local.session_config.keep_alive = Some(IDLE);
        local.session_config.sse_retry = None;
        Self {
            local,
            used: Mutex::default(),
            stopping,
        }
    }

    fn used(&self) -> MutexGuard<'_, HashMap<SessionId, Used>> {
        // Each change is one call of the map's own.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn oldest(&self) -> Option<SessionId> {
        let used = self.used();
        let mut counts: HashMap<Option<&str>, usize> = HashMap::new();
        for session in used.values() {
            *counts.entry(session.owner.as_deref()).or_default() += 1;
        }
        let count = |session: &Used| counts.get(&session.owner.as_deref()).copied();
        let oldest = used
            .iter()
            .min_by_key(|(_, session)| (Reverse(count(session)), session.last));
        oldest.map(|(id, _)| id.clone())
    }

    /// Whether the session is another caller's.
    pub fn is_anothers(&self, id: &str, caller: Option<&str>) -> bool {
        let used = self.used();
        let session = used.get(id);
        session.is_some_and(|session| session.owner.as_deref() != caller)
    }
}

impl SessionManager for Sessions {
    type Error = Failed;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Failed> {
        while self.local.sessions.read().await.len() >= SESSIONS {
            let Some(oldest) = self.oldest() else { break };
            self.close_session(&oldest).await?;
        }
        let (id, transport) = self.local.create_session().await?;
        let opened = Used {
            last: Instant::now(),
            owner: CALLER.try_with(Clone::clone).unwrap_or_default(),
        };
        self.used().insert(id.clone(), opened);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Failed> {
        self.local.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Failed> {
        if let Some(session) = self.used().get_mut(id) {
            session.last = Instant::now();
        }
        self.local.has_session(id).await
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Failed> {
        self.used().remove(id);
        self.local.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Failed> {
        self.local.create_stream(id, message).await
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Failed> {
        self.local.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Failed> {
        let stream = self.local.create_standalone_stream(id).await?;
        let mut stopping = self.stopping.clone();
        // Without an end of its own it would hold up a host that stops.
        Ok(stream.take_until(async move { stopping.changed().await }))
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Failed> {
        self.local.resume(id, last_event_id).await
    }
}
