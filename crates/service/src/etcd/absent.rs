//! What clients of etcd call and Tally does not serve, as far as no service here has it: each caller is
//! told what there is instead.

use axum::body::Body;
use axum::routing::any;
use tonic::service::Routes;

use super::rpctypes;

const NETWORK: &str = "keep the client port on a network that only its users reach";
const LOCK: &str = "the client's own lock, made of Txn, Lease and Watch: etcdctl lock";
const ELECTION: &str = "the client's own election, made of Txn, Lease and Watch: etcdctl elect";
const PAGES: &str = "Range with a limit, from page to page";

/// Path, name, and what there is instead.
const ABSENT: [(&str, &str, &str); 4] = [
    ("/etcdserverpb.Auth/{method}", "Auth", NETWORK),
    ("/v3lockpb.Lock/{method}", "Lock", LOCK),
    ("/v3electionpb.Election/{method}", "Election", ELECTION),
    // Of etcd 3.7.
    ("/etcdserverpb.KV/RangeStream", "RangeStream", PAGES),
];

/// A client that was given a name and a password asks for this first, and goes on without a token when it is told
/// that none is needed.
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// Adds the answers to the services of a port.
pub(super) fn serve(routes: Routes) -> Routes {
    let mut router = routes.into_axum_router();
    let authenticate = || async { rpctypes::auth_not_enabled().into_http::<Body>() };
    router = router.route(AUTHENTICATE, any(authenticate));
    for (path, call, instead) in ABSENT {
        let answer =
            move || async move { rpctypes::unimplemented(call, instead).into_http::<Body>() };
        router = router.route(path, any(answer));
    }
    Routes::from(router)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use axum::http::Request;
    use tonic::codegen::Service;
    use tonic::{Code, Status};

    use super::*;

    async fn told(path: &str) -> Status {
        let mut router = serve(Routes::default()).into_axum_router();
        let request = Request::post(path).body(Body::empty()).unwrap();
        let response = router.call(request).await.unwrap();
        Status::from_header_map(response.headers()).unwrap()
    }

    #[tokio::test]
    async fn a_client_with_a_password_is_told_that_it_needs_none() {
        let status = told("/etcdserverpb.Auth/Authenticate").await;
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(
            status.message(),
            "etcdserver: authentication is not enabled"
        );
    }

    #[tokio::test]
    async fn a_caller_of_what_is_absent_is_told_what_there_is_instead() {
        for path in [
            "/etcdserverpb.Auth/AuthEnable",
            "/etcdserverpb.Auth/UserList",
            "/v3lockpb.Lock/Lock",
            "/v3electionpb.Election/Campaign",
            "/etcdserverpb.KV/RangeStream",
        ] {
            let status = told(path).await;
            assert_eq!(status.code(), Code::Unimplemented, "{path}");
            assert!(status.message().contains("; instead: "), "{status}");
        }
    }
}
