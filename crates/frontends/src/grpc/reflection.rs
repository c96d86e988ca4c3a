//! Server reflection: which services there are, and the messages that they speak.
//!
//! Owns: the services that are told, and the end of a conversation when the server ends. May not know:
//! what the services do. The conversation itself is a library's.
//! Invariant: only what is served is told.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::{Body, Frame};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic::body::Body as TonicBody;
use tonic::service::Routes;
use tonic_reflection::server::Builder;
use tower_service::Service as _;
use vesta_model::Status;

use super::Ending;
use super::answer::failure;

const HEALTH: &str = "grpc.health.v1.Health";
const PROFILER: &str = "tensorflow.ProfilerService";
/// Always served, under both names that clients ask by.
const ALWAYS: [&str; 4] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
];

/// Answers the questions of clients that know no message yet.
#[derive(Clone)]
pub(super) struct Reflection {
    routes: Routes,
    ending: Ending,
}

impl Reflection {
    /// `health` and `profiler` say whether these are served, too.
    ///
    /// # Errors
    /// `INTERNAL` when the descriptors that are part of the program cannot be used.
    pub(super) fn new(health: bool, profiler: bool, ending: Ending) -> Result<Reflection, Status> {
        let unusable = |error: &dyn std::fmt::Display| {
            Status::internal(format!("server reflection cannot be set up: {error}"))
        };
        let mut names = ALWAYS.to_vec();
        names.extend(health.then_some(HEALTH));
        names.extend(profiler.then_some(PROFILER));
        let all = FileDescriptorSet::decode(vesta_protos::FILE_DESCRIPTOR_SET)
            .map_err(|error| unusable(&error))?;
        let files = files_of(&all, &names);
        let builder = || {
            let builder = Builder::configure().register_file_descriptor_set(files.clone());
            names.iter().fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let v1 = builder().build_v1().map_err(|error| unusable(&error))?;
        let v1alpha = builder().build_v1alpha().map_err(|error| unusable(&error))?;
        Ok(Reflection { routes: Routes::new(v1).add_service(v1alpha), ending })
    }

    /// Whether a request is for this.
    pub(super) fn is_asked(path: &str) -> bool {
        path.starts_with("/grpc.reflection.v1.ServerReflection/")
            || path.starts_with("/grpc.reflection.v1alpha.ServerReflection/")
    }

    /// Answers one conversation.
    pub(super) async fn answer(&self, request: Request<TonicBody>) -> Response<TonicBody> {
        let ending = Some(self.ending.clone());
        let request = request.map(|body| TonicBody::new(Cut { body, ending }));
        // Clones share what they know; each has a readiness of its own.
        match self.routes.clone().call(request).await {
            Ok(response) => response,
            Err(_) => failure(&Status::internal("server reflection failed")),
        }
    }
}

/// The files that define these services, and those that they import.
fn files_of(all: &FileDescriptorSet, services: &[&str]) -> FileDescriptorSet {
    let defines = |file: &FileDescriptorProto| {
        let names =
            file.service.iter().map(|service| format!("{}.{}", file.package(), service.name()));
        names.into_iter().any(|name| services.contains(&&*name))
    };
    let mut wanted: BTreeSet<&str> =
        all.file.iter().filter(|file| defines(file)).map(FileDescriptorProto::name).collect();
    // A file comes after those that it imports.
    for file in all.file.iter().rev() {
        if wanted.contains(file.name()) {
            wanted.extend(file.dependency.iter().map(String::as_str));
        }
    }
    let is_wanted = |file: &&FileDescriptorProto| wanted.contains(file.name());
    FileDescriptorSet { file: all.file.iter().filter(is_wanted).cloned().collect() }
}

/// What a client says, until the server ends: a client that keeps its conversation open must not keep
/// the server.
struct Cut {
    body: TonicBody,
    /// `None` once it has come.
    ending: Option<Ending>,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.get_mut();
        let Some(ending) = &mut this.ending else { return Poll::Ready(None) };
        if ending.poll_unpin(cx).is_ready() {
            this.ending = None;
            return Poll::Ready(None);
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_what_is_served_are_told_with_their_imports() {
        let all = FileDescriptorSet::decode(vesta_protos::FILE_DESCRIPTOR_SET).unwrap();
        let files = files_of(&all, &ALWAYS);
        let names: BTreeSet<&str> = files.file.iter().map(FileDescriptorProto::name).collect();
        for name in [
            "tensorflow_serving/apis/prediction_service.proto",
            "tensorflow/core/framework/types.proto",
            "google/protobuf/wrappers.proto",
        ] {
            assert!(names.contains(name), "{name}");
        }
        for name in ["onnx/onnx.proto", "tensorflow_serving/apis/session_service.proto"] {
            assert!(!names.contains(name), "{name}");
        }
        let imports = files.file.iter().flat_map(|file| &file.dependency);
        assert!(imports.into_iter().all(|import| names.contains(&**import)));
    }
}
