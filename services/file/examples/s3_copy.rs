//! A bare S3 client, as a baseline for the file service: parts of the same size, the same concurrency, and no other
//! work. It uses `confab-file`'s settings, uploads and downloads a file of the given size, and prints how long each
//! took.
//!
//! `s3_copy KEY BYTES`

use std::time::Instant;

use anyhow::Context;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::task::JoinSet;

const PART: u64 = 5 * 1024 * 1024;
const UNDER_WAY: usize = 2;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = std::env::args().collect::<Vec<_>>();
    let [_, key, bytes] = &arguments[..] else { anyhow::bail!("usage: s3_copy KEY BYTES") };
    let bytes = bytes.parse::<u64>().context("BYTES must be a number")?;
    let objects = setting("CONFAB_OBJECTS")?;
    let bucket = objects.strip_prefix("s3://").context("CONFAB_OBJECTS must be s3://bucket")?;
    let client = client()?;

    let begun = Instant::now();
    up(&client, bucket, key, bytes).await?;
    let up = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let mut body = client.get_object().bucket(bucket).key(key).send().await?.body;
    let mut read = 0;
    while let Some(chunk) = body.try_next().await? {
        read += chunk.len() as u64;
    }
    anyhow::ensure!(read == bytes, "read back {read} bytes");
    println!("{up} {}", begun.elapsed().as_secs_f64());
    client.delete_object().bucket(bucket).key(key).send().await?;
    Ok(())
}

async fn up(client: &Client, bucket: &str, key: &str, bytes: u64) -> anyhow::Result<()> {
    let block = Bytes::from((0..PART).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>());
    let upload = client.create_multipart_upload().bucket(bucket).key(key).send().await?;
    let id = upload.upload_id().context("missing upload id")?;
    let (mut under_way, mut done) = (JoinSet::new(), Vec::new());
    for number in 0..bytes.div_ceil(PART) {
        if under_way.len() >= UNDER_WAY {
            done.extend(under_way.join_next().await.transpose()?.transpose()?);
        }
        let (number, part) = (number as i32 + 1, block.slice(..PART.min(bytes - number * PART) as usize));
        let request = client.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number).body(part.into());
        under_way.spawn(async move {
            let part = request.send().await.context("cannot send a part")?;
            anyhow::Ok(CompletedPart::builder().part_number(number).set_e_tag(part.e_tag).build())
        });
    }
    while let Some(part) = under_way.join_next().await {
        done.push(part??);
    }
    done.sort_unstable_by_key(|part| part.part_number());
    let parts = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
    client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id).multipart_upload(parts).send().await?;
    Ok(())
}

fn client() -> anyhow::Result<Client> {
    let secret = std::fs::read_to_string(setting("CONFAB_S3_SECRET_ACCESS_KEY_FILE")?)?;
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new(
            setting("CONFAB_S3_ACCESS_KEY_ID")?,
            secret.trim(),
            None,
            None,
            "settings",
        ))
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    config.set_endpoint_url(Some(setting("CONFAB_S3_ENDPOINT")?));
    Ok(Client::from_conf(config.build()))
}

fn setting(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
