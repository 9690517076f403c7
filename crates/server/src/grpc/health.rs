//! The gRPC health checking protocol: the same answer as `/health/ready`, without its checks.

use super::health_v1::health_check_response::ServingStatus;
use super::health_v1::health_server;
use super::health_v1::{HealthCheckRequest, HealthCheckResponse};
use crate::app::App;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tonic::{Request, Response, Status};

/// Services whose health can be asked; the empty name is the whole server.
const SERVICES: [&str; 2] = ["", "debvisor.v1.Resources"];

pub(super) struct Health(pub Arc<App>);

impl Health {
    fn now(&self) -> HealthCheckResponse {
        let status = match self.0.ready.load(Ordering::Relaxed) {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        HealthCheckResponse {
            status: status.into(),
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match SERVICES.contains(&request.get_ref().service.as_str()) {
            true => Ok(Response::new(self.now())),
            false => Err(Status::not_found("there is no such service")),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            let unknown = HealthCheckResponse {
                status: ServingStatus::ServiceUnknown.into(),
            };
            let once = futures::stream::once(async move { Ok(unknown) });
            return Ok(Response::new(once.boxed()));
        }
        let first = self.now();
        let this = Health(self.0.clone());
        let then = futures::stream::once(async move {
            this.0.closing.cancelled().await;
            Ok(HealthCheckResponse {
                status: ServingStatus::NotServing.into(),
            })
        });
        let all = futures::stream::once(async move { Ok(first) }).chain(then);
        Ok(Response::new(all.boxed()))
    }
}
