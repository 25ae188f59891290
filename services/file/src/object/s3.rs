//! Objects in a bucket of an S3 store: Amazon's, SeaweedFS, Ceph and others. Every call has a time limit, so that an
//! unreachable store causes prompt errors instead of waiting clients.

mod account;
mod check;
mod download;
mod failure;
mod mark;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Config, Credentials, Region, SharedCredentialsProvider, SharedHttpClient,
};
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig};
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use confab_common::trust::Authorities;
use confab_common::{Error, Result, Secret};
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Content, Found, Objects, Owner, Stored, Writer};
use crate::memory::Parts;
use download::Download;
use failure::Failure;
use upload::Upload;

/// The part of every key after the prefix.
const FOLDER: &str = "files/";
/// Minimum bytes of every part except the last, as required by stores, and maximum parts of an object.
const LEAST_PART: u64 = 5 * 1024 * 1024;
const MOST_PARTS: u64 = 10_000;
/// Parts being sent at once in this process.
const PARTS: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for a small request.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Time limit for creating the bucket.
const CREATE_BUCKET_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for a request of the sweep.
const SWEEP_REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// How long the store counts as reachable after an answer.
const TRUSTED: Duration = Duration::from_secs(5);
/// Maximum keys in one answer.
const PAGE: u32 = 1000;

/// The address of the store and its credentials.
pub struct Account {
    /// `None`: Amazon's endpoint for the region.
    pub endpoint: Option<String>,
    pub region: String,
    /// `None`: the credentials that the SDK finds.
    pub key: Option<Key>,
}

pub struct Key {
    pub id: String,
    pub secret: Secret,
    pub token: Option<Secret>,
}

/// A bucket of an S3 store. Its first use creates it if necessary.
pub struct S3(Arc<Bucket>);

struct Bucket {
    client: Client,
    name: String,
    /// The prefix of this installation's keys in the bucket: empty, or a path that ends with a slash.
    prefix: String,
    region: String,
    /// How long the store may take to answer a small request before it is repeated once.
    answer: Duration,
    parts: Arc<Semaphore>,
    /// Bytes of every part except the last.
    part: usize,
    /// When the bucket was last checked, and the result. Locked during a check, so that concurrent callers share one
    /// check.
    seen: Mutex<Option<(Instant, Result<()>)>>,
}

impl S3 {
    /// Opens the objects below `prefix` in the bucket `name`, of at most `largest` bytes each.
    pub fn new(name: &str, prefix: &str, account: Account, largest: u64) -> Self {
        Self::answering(name, prefix, account, largest, ANSWER_LIMIT)
    }

    /// Like [`new`](Self::new), with a time limit for an answer.
    pub fn answering(name: &str, prefix: &str, account: Account, largest: u64, answer: Duration) -> Self {
        let http = http();
        let credentials = match account.key {
            Some(Key { id, secret, token }) => {
                let token = token.map(|token| token.expose().to_owned());
                SharedCredentialsProvider::new(Credentials::new(id, secret.expose(), token, None, "settings"))
            }
            None => credentials(http.clone(), &account.region),
        };
        let mut config = patience(answer, 2 * answer)
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .credentials_provider(credentials)
            .region(Region::new(account.region.clone()))
            .force_path_style(true)
            .retry_config(RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(50)))
            // Stores other than Amazon's reject checksums in trailers.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // A reader may be slow for a good reason; `Download` handles stalled reads.
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .download_enabled(false)
                    .grace_period(Duration::from_secs(5))
                    .build(),
            );
        config.set_endpoint_url(account.endpoint);
        let client = Client::from_conf(config.build());
        let parts = Arc::new(Semaphore::new(PARTS));
        let part = largest.div_ceil(MOST_PARTS).max(LEAST_PART) as usize;
        let (name, prefix, region) = (name.into(), prefix.into(), account.region);
        Self(Arc::new(Bucket { client, name, prefix, region, answer, parts, part, seen: Mutex::default() }))
    }
}

/// Returns a client that also trusts private authorities.
fn http() -> SharedHttpClient {
    let trusted = TrustStore::empty().with_pem_certificate(Authorities::own().pem());
    let context = TlsContext::builder().with_trust_store(trusted).build().expect("the trust store is set");
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .build_https()
}

/// Returns the credentials that Amazon's own programs would find.
fn credentials(http: SharedHttpClient, region: &str) -> SharedCredentialsProvider {
    let config = ProviderConfig::default().with_http_client(http);
    let chain = DefaultCredentialsChain::builder().configure(config).region(Region::new(region.to_owned())).build();
    // The chain does not wait, because the region is given.
    SharedCredentialsProvider::new(chain.now_or_never().expect("a known region"))
}

/// Returns time limits for one attempt and for all attempts together.
fn patience(attempt: Duration, all: Duration) -> Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(all);
    Config::builder().timeout_config(timeouts.build())
}

impl Objects for S3 {
    fn create(&self, key: Uuid, parts: Parts) -> BoxFuture<'_, Result<Box<dyn Writer>>> {
        let begin = async move {
            self.0.ready().await?;
            Ok(Box::new(Upload::new(self.0.clone(), self.0.key(key), parts)) as Box<dyn Writer>)
        };
        begin.boxed()
    }

    fn read(&self, key: Uuid, offset: u64, length: u64) -> BoxFuture<'_, Result<Option<Content>>> {
        Download::begin(self.0.clone(), self.0.key(key), offset, length).boxed()
    }

    fn delete(&self, key: Uuid) -> BoxFuture<'_, Result<()>> {
        let delete = async move {
            match self
                .0
                .client
                .delete_object()
                .bucket(&self.0.name)
                .key(self.0.key(key))
                .send()
                .await
                .map_err(Failure::from)
            {
                Err(failure) if !failure.is_absent() => Err(failure.error()),
                _ => Ok(()),
            }
        };
        delete.boxed()
    }

    fn list(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Stored>>> {
        self.0.list(after, limit as usize).boxed()
    }

    fn abandon(&self, before: SystemTime) -> BoxFuture<'_, Result<u64>> {
        self.0.abandon(before).boxed()
    }

    fn owner(&self) -> BoxFuture<'_, Result<Option<Found>>> {
        self.0.owner().boxed()
    }

    fn claim(&self, owner: Owner) -> BoxFuture<'_, Result<bool>> {
        async move { self.0.claim(&owner).await }.boxed()
    }

    fn check(&self, owner: Owner) -> BoxFuture<'_, std::result::Result<(), String>> {
        async move { self.0.check(&owner).await }.boxed()
    }

    fn set_owner(&self, owner: Owner, found: Option<&Found>) -> BoxFuture<'_, Result<()>> {
        let version = found.and_then(|found| found.version.clone());
        async move { self.0.set_owner(&owner, version).await }.boxed()
    }
}

impl Bucket {
    /// Checks that the store answers and the bucket exists, before a caller does costly work.
    async fn ready(&self) -> Result<()> {
        let asked = Instant::now();
        let mut seen = self.seen.lock().await;
        match &*seen {
            Some((when, Ok(()))) if when.elapsed() < TRUSTED => return Ok(()),
            // The check failed while this caller waited. If every waiting caller checked again, each would wait as
            // long, one after another.
            Some((when, Err(error))) if *when >= asked => return Err(error.clone()),
            _ => {}
        }
        let found = self.find().await;
        *seen = Some((Instant::now(), found.clone()));
        found
    }

    async fn find(&self) -> Result<()> {
        if self.is_there().await? {
            return Ok(());
        }
        self.make().await?;
        // Stores remember for a moment that the bucket was missing, and would reject a write.
        for pause in [5, 10, 20, 50, 100, 200, 400] {
            if self.is_there().await? {
                return Ok(());
            }
            sleep(Duration::from_millis(pause)).await;
        }
        Err(Error::unavailable("file storage"))
    }

    async fn is_there(&self) -> Result<bool> {
        match self.client.head_bucket().bucket(&self.name).send().await.map_err(Failure::from) {
            // Keys that may read and write objects need not have the permission to query the bucket.
            Err(failure) if failure.is_forbidden() => Ok(true),
            Err(failure) if failure.is_absent() => Ok(false),
            answer => answer.map(|_| true).map_err(Failure::error),
        }
    }

    async fn make(&self) -> Result<()> {
        let elsewhere = (self.region != "us-east-1").then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(self.region.as_str()))
                .build()
        });
        let make = self.client.create_bucket().bucket(&self.name).set_create_bucket_configuration(elsewhere);
        let made = make.customize().config_override(patience(CREATE_BUCKET_LIMIT, CREATE_BUCKET_LIMIT)).send().await;
        match made.map_err(Failure::from) {
            Ok(_) => tracing::info!(bucket = self.name, "created the bucket"),
            // Another replica created it first.
            Err(failure) if failure.is_conflict() => {}
            Err(failure) => {
                tracing::error!(bucket = self.name, "the bucket does not exist and cannot be created");
                return Err(failure.error());
            }
        }
        Ok(())
    }

    async fn list(&self, after: Uuid, limit: usize) -> Result<Vec<Stored>> {
        self.ready().await?;
        let mut found = Vec::new();
        let folder = self.folder();
        let mut last = self.key(after);
        while found.len() < limit {
            let most = (limit - found.len()).min(PAGE as usize) as i32;
            let question =
                self.client.list_objects_v2().bucket(&self.name).prefix(&folder).start_after(&last).max_keys(most);
            let page = question
                .customize()
                .config_override(patience(SWEEP_REQUEST_LIMIT, SWEEP_REQUEST_LIMIT))
                .send()
                .await
                .map_err(|error| Failure::from(error).error())?;
            let Some(key) = page.contents().last().and_then(|object| object.key()) else { break };
            last = key.into();
            found.extend(page.contents().iter().filter_map(|object| self.stored(object)));
            if page.is_truncated() != Some(true) {
                break;
            }
        }
        Ok(found)
    }

    async fn abandon(&self, before: SystemTime) -> Result<u64> {
        self.ready().await?;
        let (mut abandoned, mut key, mut upload) = (0, None, None);
        loop {
            let question = self.client.list_multipart_uploads().bucket(&self.name).prefix(self.folder());
            let question = question.set_key_marker(key).set_upload_id_marker(upload);
            let page = question
                .customize()
                .config_override(patience(SWEEP_REQUEST_LIMIT, SWEEP_REQUEST_LIMIT))
                .send()
                .await
                .map_err(|error| Failure::from(error).error())?;
            for begun in page.uploads() {
                let old = begun
                    .initiated()
                    .and_then(|time| SystemTime::try_from(*time).ok())
                    .is_some_and(|time| time < before);
                let ours = begun.key().filter(|key| self.id(key).is_some());
                if let (true, Some(key), Some(upload)) = (old, ours, begun.upload_id()) {
                    self.abort(key, upload).await?;
                    abandoned += 1;
                }
            }
            (key, upload) = (page.next_key_marker, page.next_upload_id_marker);
            if page.is_truncated != Some(true) || key.is_none() {
                return Ok(abandoned);
            }
        }
    }

    /// Aborts a multipart upload; a missing upload is not an error.
    async fn abort(&self, key: &str, upload: &str) -> Result<()> {
        match self
            .client
            .abort_multipart_upload()
            .bucket(&self.name)
            .key(key)
            .upload_id(upload)
            .send()
            .await
            .map_err(Failure::from)
        {
            Err(failure) if !failure.is_absent() => Err(failure.error()),
            _ => Ok(()),
        }
    }

    /// Returns the common prefix of all objects.
    fn folder(&self) -> String {
        format!("{}{FOLDER}", self.prefix)
    }

    fn key(&self, id: Uuid) -> String {
        format!("{}{FOLDER}{id}", self.prefix)
    }

    /// Returns the id of the object with this key, or `None` for a foreign key: the prefix may contain others.
    fn id(&self, key: &str) -> Option<Uuid> {
        let id = Uuid::try_parse(key.strip_prefix(&self.prefix)?.strip_prefix(FOLDER)?).ok()?;
        (self.key(id) == key).then_some(id)
    }

    fn stored(&self, object: &aws_sdk_s3::types::Object) -> Option<Stored> {
        let modified = SystemTime::try_from(*object.last_modified()?).ok()?;
        Some(Stored { key: self.id(object.key()?)?, modified })
    }
}
