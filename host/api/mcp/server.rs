//! What a client of the protocol can ask for.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::sync::{Arc, OnceLock};

use axum::http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Extensions, Implementation, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig, SubscriptionFilter,
    Tool,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{call, document, outcome, tool};
use crate::api::caller;
use crate::registry::{self, Snapshot};
use crate::router::Router;

const INSTRUCTIONS: &str = "Each tool is a capability that a sandboxed WebAssembly worker offers. A failure's \
    structured content has a stable code; retry only where it has retry_after, in seconds. The resources \
    crank://capabilities/{verb}/{name} document each capability: schemas, examples, limits.";

/// One client's side of the host: of a session where there is one, else of one request.
pub(in crate::api) struct Server {
    pub(super) router: Arc<Router>,
    /// Who calls, where no request says it.
    local: Option<Arc<str>>,
    stopping: watch::Receiver<()>,
    /// Tells the client of a session that the tools have changed.
    watching: OnceLock<AbortOnDropHandle<()>>,
}

impl Server {
    pub(super) fn new(router: Arc<Router>, stopping: watch::Receiver<()>) -> Self {
        Self {
            router,
            local: None,
            stopping,
            watching: OnceLock::new(),
        }
    }

    /// The same for one client, who has this id.
    pub(super) fn of(self, local: Option<Arc<str>>) -> Self {
        Self { local, ..self }
    }

    /// Who sent a message. Over HTTP each request says so.
    fn caller(&self, extensions: &Extensions) -> Option<String> {
        match extensions.get::<Parts>() {
            Some(http) => caller::id(&http.extensions),
            None => self.local.as_deref().map(str::to_owned),
        }
    }

    /// What there is for who sent a message.
    async fn shown(&self, extensions: &Extensions) -> Result<Arc<Snapshot>, ErrorData> {
        let shown = self.router.shown(self.caller(extensions).as_deref()).await;
        shown.map_err(outcome::error)
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("crank", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = tool::all(&self.shown(&context.extensions).await?);
        Ok(ListToolsResult::with_all_items(tools))
    }

    /// For the SDK alone, which holds headers against it.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        let snapshot = self.router.registry().snapshot();
        let candidates = tool::find(&snapshot, name)?;
        registry::newest(candidates).map(tool::describe)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let caller = self.caller(&context.extensions);
        call::call(&self.router, caller, request, context).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let documents = document::all(&self.shown(&context.extensions).await?);
        Ok(ListResourcesResult::with_all_items(documents))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template = document::template();
        Ok(ListResourceTemplatesResult::with_all_items(vec![template]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let snapshot = self.shown(&context.extensions).await?;
        let contents = document::read(&snapshot, &request.uri)?;
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let caller = self.caller(&context.extensions);
        let (router, peer) = (self.router.clone(), context.peer);
        let mut seen = Seen::now(&router, caller).await;
        let watch = async move {
            while !peer.is_transport_closed() {
                seen.change(&router).await;
                // A client that cannot be told now asks again when it needs to.
                let _ = peer.notify_tool_list_changed().await;
                let _ = peer.notify_resource_list_changed().await;
            }
        };
        // A client that says it twice is watched for once.
        self.watching
            .get_or_init(|| AbortOnDropHandle::new(tokio::spawn(watch)));
    }

    fn accepted_subscription_filter(&self, _: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let offered = SubscriptionFilter::builder();
        Some(
            offered
                .tools_list_changed()
                .resources_list_changed()
                .build(),
        )
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let mut stopping = self.stopping.clone();
        let sink = subscription.sink();
        let caller = self.caller(&subscription.request_context().extensions);
        let watch = async {
            let mut seen = Seen::now(&self.router, caller).await;
            loop {
                seen.change(&self.router).await;
                // What the client did not ask for is an error here.
                let _ = sink.notify_tool_list_changed().await;
                let _ = sink.notify_resource_list_changed().await;
            }
        };
        tokio::select! {
            () = watch => {}
            () = subscription.cancelled() => {}
            _ = stopping.changed() => {}
        }
        Ok(())
    }
}

/// The list of tools that a client knows.
struct Seen {
    caller: Option<String>,
    changes: watch::Receiver<()>,
    print: Option<u64>,
}

impl Seen {
    async fn now(router: &Router, caller: Option<String>) -> Self {
        Self {
            changes: router.registry().changes(),
            print: print(router, caller.as_deref()).await,
            caller,
        }
    }

    /// Resolves once the list is another. Most changes of the registry are none of the list.
    async fn change(&mut self, router: &Router) {
        while self.changes.changed().await.is_ok() {
            let print = print(router, self.caller.as_deref()).await;
            let before = std::mem::replace(&mut self.print, print);
            // What is not known now may be another list.
            if print.is_none() || print != before {
                return;
            }
        }
        std::future::pending().await
    }
}

/// Stands for the list of tools in as little room as many clients' lists should take.
async fn print(router: &Router, caller: Option<&str>) -> Option<u64> {
    let tools = tool::all(&router.shown(caller).await.ok()?);
    let mut hasher = DefaultHasher::new();
    hasher.write(&serde_json::to_vec(&tools).unwrap_or_default());
    Some(hasher.finish())
}
