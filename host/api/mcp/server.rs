//! What a client of the protocol can ask for.

use std::sync::{Arc, OnceLock};

use axum::http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Extensions, Implementation,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    ResourceUpdatedNotificationParam, ServerCapabilities, ServerConfig, SubscribeRequestParams,
    SubscriptionFilter, Tool, UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::seen::{self, News, Seen, Watched};
use super::{call, document, outcome, resource, tool};
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
    /// What the client of a session watches.
    watched: Arc<Watched>,
    /// Tells the client of a session that the tools have changed.
    watching: OnceLock<AbortOnDropHandle<()>>,
}

impl Server {
    pub(super) fn new(router: Arc<Router>, stopping: watch::Receiver<()>) -> Self {
        Self {
            router,
            local: None,
            stopping,
            watched: Arc::default(),
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
            .enable_resources_subscribe()
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
        let snapshot = self.shown(&context.extensions).await?;
        let tools = tool::all(&snapshot);
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
        let snapshot = self.shown(&context.extensions).await?;
        let mut resources = document::all(&snapshot);
        resources.extend(resource::single(&snapshot));
        Ok(ListResourcesResult::with_all_items(resources))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let snapshot = self.shown(&context.extensions).await?;
        let mut templates = vec![document::template()];
        templates.extend(resource::templates(&snapshot));
        Ok(ListResourceTemplatesResult::with_all_items(templates))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let (uri, snapshot) = (request.uri, self.shown(&context.extensions).await?);
        if let Some(candidate) = document::find(&snapshot, &uri) {
            let contents = document::contents(candidate, &uri);
            return Ok(ReadResourceResult::new(vec![contents]).into());
        }
        let found = resource::find(&snapshot, &uri);
        let (candidate, input) = found.ok_or_else(|| seen::nothing(&uri))?;
        let offered = candidate.offered.clone();
        drop(snapshot);
        let caller = self.caller(&context.extensions);
        let contents = call::read(&self.router, caller, &offered, input, uri, &context).await?;
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let snapshot = self.shown(&context.extensions).await?;
        self.watched.add(request.uri, &snapshot)
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.watched.remove(&request.uri);
        Ok(())
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let caller = self.caller(&context.extensions);
        let (router, peer) = (self.router.clone(), context.peer);
        let mut seen = Seen::now(&router, caller, self.watched.clone()).await;
        let watch = async move {
            while !peer.is_transport_closed() {
                let News { list, resources } = seen.change(&router).await;
                // A client that cannot be told now asks again when it needs to.
                if list {
                    let _ = peer.notify_tool_list_changed().await;
                    let _ = peer.notify_resource_list_changed().await;
                }
                for uri in resources {
                    let updated = ResourceUpdatedNotificationParam::new(uri);
                    let _ = peer.notify_resource_updated(updated).await;
                }
            }
        };
        // A client that says it twice is watched for once.
        self.watching
            .get_or_init(|| AbortOnDropHandle::new(tokio::spawn(watch)));
    }

    fn accepted_subscription_filter(
        &self,
        asked: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        let offered = SubscriptionFilter::builder()
            .tools_list_changed()
            .resources_list_changed()
            .resource_subscriptions(asked.resource_subscriptions.iter().flatten());
        Some(offered.build())
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        let mut stopping = self.stopping.clone();
        let sink = subscription.sink();
        let extensions = &subscription.request_context().extensions;
        let snapshot = self.shown(extensions).await?;
        let uris = subscription.accepted().resource_subscriptions.as_deref();
        let watched = Watched::of(uris.unwrap_or_default(), &snapshot);
        let caller = self.caller(extensions);
        let watch = async {
            let mut seen = Seen::now(&self.router, caller, Arc::new(watched)).await;
            loop {
                let News { list, resources } = seen.change(&self.router).await;
                if list {
                    // What the client did not ask for is an error here.
                    let _ = sink.notify_tool_list_changed().await;
                    let _ = sink.notify_resource_list_changed().await;
                }
                for uri in resources {
                    let _ = sink.notify_resource_updated(uri).await;
                }
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
