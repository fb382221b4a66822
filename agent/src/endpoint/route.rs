//! What can be asked: one closed list of paths and methods.

use hyper::Method;
use spec::id::AppName;

use super::page::{self, File};

/// Who tells of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forge {
    /// GitHub.
    Github,
    /// GitLab.
    Gitlab,
    /// Gitea.
    Gitea,
    /// Forgejo.
    Forgejo,
    /// Anybody who knows the secret.
    Generic,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Whether the process is alive and its loop turns.
    Health,
    /// Whether the host is looked after.
    Ready,
    /// Everything that can be counted.
    Metrics,
    /// Everything that is known.
    Status,
    /// What is being done, and what cannot be done.
    Plan,
    /// How the applications fare.
    Apps,
    /// How one of them fares.
    App(AppName),
    /// Where services are.
    Endpoints,
    /// Everything that is known, and again whenever it is another.
    Events,
    /// What was deployed, and what came of it.
    History,
    /// The same, as Grafana's annotations.
    Annotations,
    /// That the repository is asked now.
    Sync,
    /// The same, by a forge.
    Hook(Forge),
    /// A file of the page.
    Page(&'static File),
    /// The description of all this.
    Description,
}

/// Why nothing can be asked there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Astray {
    /// There is nothing.
    Nothing,
    /// It takes another method.
    Method(&'static str),
}

impl Route {
    /// Finds out what is asked.
    pub(super) fn of(method: &Method, path: &str) -> Result<Route, Astray> {
        let route = Route::at(path).ok_or(Astray::Nothing)?;
        let (is_allowed, allowed) = match route.changes() {
            true => (method == Method::POST, "POST"),
            false => (method == Method::GET || method == Method::HEAD, "GET, HEAD"),
        };
        if is_allowed { Ok(route) } else { Err(Astray::Method(allowed)) }
    }

    fn at(path: &str) -> Option<Route> {
        Some(match path {
            "/healthz" => Route::Health,
            "/readyz" => Route::Ready,
            "/metrics" => Route::Metrics,
            "/v1/status" => Route::Status,
            "/v1/plan" => Route::Plan,
            "/v1/apps" => Route::Apps,
            "/v1/endpoints" => Route::Endpoints,
            "/v1/events" => Route::Events,
            "/v1/sync" => Route::Sync,
            "/v1/history" => Route::History,
            "/v1/annotations" => Route::Annotations,
            "/v1/hook/github" => Route::Hook(Forge::Github),
            "/v1/hook/gitlab" => Route::Hook(Forge::Gitlab),
            "/v1/hook/gitea" => Route::Hook(Forge::Gitea),
            "/v1/hook/forgejo" => Route::Hook(Forge::Forgejo),
            "/v1/hook/generic" => Route::Hook(Forge::Generic),
            "/openapi.json" => Route::Description,
            "/" => Route::Page(&page::INDEX),
            "/style.css" => Route::Page(&page::STYLE),
            "/icon.svg" => Route::Page(&page::ICON),
            "/script.js" => Route::Page(&page::SCRIPT),
            _ => Route::App(AppName::parse(path.strip_prefix("/v1/apps/")?).ok()?),
        })
    }

    /// Says whether asking for it changes anything: such a thing is never done by a GET.
    pub(super) fn changes(&self) -> bool {
        match self {
            Route::Sync | Route::Hook(_) => true,
            Route::Health
            | Route::Ready
            | Route::Metrics
            | Route::Status
            | Route::Plan
            | Route::Apps
            | Route::App(_)
            | Route::Endpoints
            | Route::Events
            | Route::History
            | Route::Annotations
            | Route::Page(_)
            | Route::Description => false,
        }
    }

    /// Says whether it may be asked without a token: it tells nothing, or proves itself in another way.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Route::Health | Route::Ready | Route::Hook(_) | Route::Page(_) | Route::Description)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_are_a_closed_list() {
        let at = |method, path| Route::of(&method, path);
        assert_eq!(at(Method::GET, "/v1/status"), Ok(Route::Status));
        assert_eq!(at(Method::HEAD, "/v1/status"), Ok(Route::Status));
        assert_eq!(at(Method::GET, "/v1/apps/web"), Ok(Route::App(AppName::parse("web").expect("a name"))));
        for path in
            ["", "/v1", "/v1/status/", "/V1/status", "/v1/apps/", "/v1/apps/../x", "/v1/apps/%77eb", "//healthz"]
        {
            assert_eq!(at(Method::GET, path), Err(Astray::Nothing), "{path}");
        }
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert_eq!(at(method, "/v1/sync"), Err(Astray::Method("POST")), "a look changes nothing");
        }
        assert_eq!(at(Method::POST, "/v1/status"), Err(Astray::Method("GET, HEAD")));
    }
}
