//! Object stores: S3, Google Cloud Storage, Azure.
//!
//! Owns: the clients, one for each bucket, and the threads that they run on. Credentials, endpoints
//! and whether plain HTTP is allowed come from the environment, as each store's own tools read it.
//! May not know: what is wanted.
//! Invariants: no call of a client runs on a thread of somebody else; without a base path in a store
//! there are neither clients nor threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ObjectStore, ObjectStoreScheme, RetryConfig};
use tokio::runtime::Runtime;
use url::Url;
use vesta_model::{BasePath, ModelName, Status, Version};

use crate::cache::Cache;
use crate::fetch::fetch;
use crate::scan::{Numbered, no_base_path, no_reservation, parse_version};
use crate::{Fetched, Listing, LocalDisk, Store};

/// Threads that clients run on.
const THREADS: usize = 2;
/// How often a request is repeated that a store did not answer well.
const RETRIES_MAX: usize = 3;
/// How long that may take in all.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);

/// The local disk, and the object stores, whose versions are copied to the local disk.
pub struct Stores {
    cache: Arc<Cache>,
    clients: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
    runtime: OnceLock<Runtime>,
}

/// A place in a store.
pub(crate) struct Place {
    pub(crate) client: Arc<dyn ObjectStore>,
    pub(crate) prefix: object_store::path::Path,
}

impl Stores {
    /// Stores whose versions are copied to below `cache`; an error tells why there is no such place,
    /// once it is needed.
    pub fn new(cache: Result<std::path::PathBuf, Status>) -> Stores {
        Stores {
            cache: Arc::new(Cache::new(cache)),
            clients: Mutex::default(),
            runtime: OnceLock::new(),
        }
    }

    /// Checks that versions can be copied at all.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when the place for copies cannot be written to.
    pub fn check_cache(&self) -> Result<(), Status> {
        self.cache.prepare().map(|_| ())
    }

    /// Uses `client` for everything below `root`, such as `s3://bucket`.
    #[cfg(test)]
    pub(crate) fn with_client(self, root: &str, client: Arc<dyn ObjectStore>) -> Stores {
        self.clients.lock().unwrap().insert(root.to_owned(), client);
        self
    }

    fn runtime(&self) -> Result<&Runtime, Status> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let made = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("vesta-store")
            .enable_all()
            .build()
            .map_err(|e| {
                Status::internal("the threads of object stores cannot be started").with_cause(e)
            })?;
        // Of two that were made at the same time one is used; the other has nothing to do.
        if let Err(surplus) = self.runtime.set(made) {
            surplus.shutdown_background();
        }
        self.runtime.get().ok_or_else(|| Status::internal("there are no threads of object stores"))
    }

    fn place(&self, text: &str) -> Result<Place, Status> {
        let unusable = |problem: &dyn std::fmt::Display| {
            Status::invalid_argument(format!("{text} cannot be used: {problem}"))
        };
        let url = Url::parse(text).map_err(|e| unusable(&e))?;
        let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|e| unusable(&e))?;
        let root = format!("{}://{}", url.scheme(), url.authority());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match clients.get(&root) {
            Some(client) => Arc::clone(client),
            None => {
                let client = client(scheme, &root).map_err(|e| unusable(&e))?;
                clients.insert(root, Arc::clone(&client));
                client
            }
        };
        Ok(Place { client, prefix })
    }

    fn list_store(&self, model: &ModelName, base: &str) -> Result<Listing, Status> {
        let outcome = self.place(base).and_then(|place| {
            let listed = place.client.list_with_delimiter(Some(&place.prefix));
            self.runtime()?.block_on(listed).map_err(|e| status_of(base, &e))
        });
        let listed = outcome.map_err(|problem| no_base_path(model, base, &problem))?;
        if listed.common_prefixes.is_empty() && listed.objects.is_empty() {
            let problem = Status::not_found(format!("{base} not found"));
            return Err(no_base_path(model, base, &problem));
        }
        let mut numbered = Numbered::default();
        for folder in &listed.common_prefixes {
            numbered.add(folder.filename().unwrap_or_default().as_bytes());
        }
        let files: Vec<&str> =
            listed.objects.iter().filter_map(|object| object.location.filename()).collect();
        for file in &files {
            numbered.add(file.as_bytes());
        }
        Ok(numbered.listing(|version, name| {
            let name = String::from_utf8_lossy(name);
            let artifact = format!("{base}/{name}");
            if files.contains(&&*name) {
                let problem = Status::failed_precondition(format!("{artifact}; Not a directory"));
                return Err(no_reservation(model, version, &problem));
            }
            Ok(artifact.into())
        }))
    }
}

impl Store for Stores {
    fn list(&self, model: &ModelName, base: &BasePath) -> Result<Listing, Status> {
        match base {
            BasePath::Directory(_) => LocalDisk.list(model, base),
            BasePath::Store(url) => self.list_store(model, url),
        }
    }

    fn fetch(&self, artifact: &Path) -> Result<Fetched, Status> {
        if artifact.is_absolute() {
            return LocalDisk.fetch(artifact);
        }
        let url = artifact.to_string_lossy();
        let parts = url
            .rsplit_once('/')
            .and_then(|(base, name)| Some((base, parse_version(name.as_bytes())?)));
        let Some((base, version)) = parts else {
            return Err(Status::invalid_argument(format!("{url} does not end in a version")));
        };
        fetch(self.runtime()?, &self.place(&url)?, &self.cache, &url, base, version)
    }

    fn keep(&self, base: &BasePath, wanted: &[Version]) {
        if let BasePath::Store(url) = base {
            self.cache.keep(url, wanted);
        }
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A request that hangs must not hold up the end.
            runtime.shutdown_background();
        }
    }
}

/// A client for a bucket.
fn client(scheme: ObjectStoreScheme, root: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    // Somebody else may have chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => {
            Arc::new(AmazonS3Builder::from_env().with_url(root).with_retry(retry).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env();
            Arc::new(builder.with_url(root).with_retry(retry).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            Arc::new(MicrosoftAzureBuilder::from_env().with_url(root).with_retry(retry).build()?)
        }
        _ => {
            return Err(object_store::Error::NotImplemented {
                operation: format!("reading models from {root}"),
                implementer: "vesta".to_owned(),
            });
        }
    })
}

/// What a store's error is to whoever waits for a model.
pub(crate) fn status_of(what: &str, error: &object_store::Error) -> Status {
    use object_store::Error;
    let text = format!("{what}; {error}");
    match error {
        Error::NotFound { .. } => Status::not_found(text),
        Error::PermissionDenied { .. } => Status::permission_denied(text),
        Error::Unauthenticated { .. } => Status::unauthenticated(text),
        Error::Precondition { .. } => Status::aborted(format!("{text} (it was changed meanwhile)")),
        Error::InvalidPath { .. } => Status::invalid_argument(text),
        _ => Status::unavailable(text),
    }
}
