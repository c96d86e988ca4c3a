//! A lease keeps exactly one version alive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use vesta_model::{ModelName, Signature, Status, Tensor, Version};

/// What one request wants computed.
#[derive(Clone, Debug)]
pub struct InferRequest {
    /// Name of the signature.
    pub signature: String,
    /// One tensor per input of the signature, in its order.
    pub inputs: Vec<Tensor>,
    /// Positions of the outputs wanted, in the order wanted.
    pub outputs: Vec<usize>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// The right to use one loaded version. The version stays loaded until its last lease is dropped.
#[derive(Clone, Debug)]
pub struct Lease {
    model: ModelName,
    version: Version,
    signatures: Arc<BTreeMap<String, Arc<Signature>>>,
}

impl Lease {
    /// The model's name.
    pub fn model(&self) -> &ModelName {
        &self.model
    }

    /// The version that was resolved.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Every signature by name.
    pub fn signatures(&self) -> &BTreeMap<String, Arc<Signature>> {
        &self.signatures
    }

    /// Computes the outputs wanted.
    ///
    /// # Errors
    /// Not built yet.
    pub async fn infer(&self, request: InferRequest) -> Result<Vec<Tensor>, Status> {
        Err(Status::unimplemented(format!("signature {} cannot be run yet", request.signature)))
    }
}
