//! The URLs of services, from the settings.

use std::net::IpAddr;

use anyhow::{Context, bail, ensure};

/// Where the replicas of a service are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Urls {
    /// Whether the service has a certificate.
    pub is_https: bool,
    /// As `host:port`.
    pub targets: Vec<String>,
}

impl Urls {
    /// Parses one `http://host:port` or `https://host:port`, or several of the same kind, separated by commas.
    ///
    /// # Errors
    /// When the text is not of that form.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let urls = text.split(',').map(|url| parse(url.trim())).collect::<anyhow::Result<Vec<_>>>()?;
        let is_https = urls.iter().any(|(is_https, _)| *is_https);
        ensure!(urls.iter().all(|url| url.0 == is_https), "{text} has both http:// and https:// URLs");
        Ok(Self { is_https, targets: urls.into_iter().map(|(_, target)| target).collect() })
    }

    /// Returns the first target that is not on this machine.
    pub fn beyond_loopback(&self) -> Option<&String> {
        self.targets.iter().find(|target| {
            let host = target.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']));
            host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        })
    }
}

/// Checks the URLs of a service; a value parser for clap.
///
/// # Errors
/// When the text is not of that form.
pub fn urls(text: &str) -> Result<String, String> {
    Urls::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Returns the `host:port`s in one `http://host:port`, or several separated by commas.
///
/// # Errors
/// When the text is not of that form.
pub fn targets(text: &str) -> anyhow::Result<Vec<String>> {
    let urls = Urls::parse(text)?;
    ensure!(!urls.is_https, "{text} is not of the form http://host:port");
    Ok(urls.targets)
}

/// Returns whether a URL is `https://`, and its `host:port`.
fn parse(url: &str) -> anyhow::Result<(bool, String)> {
    let uri: http::Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    match (uri.scheme_str(), uri.host(), uri.port_u16()) {
        (Some(scheme @ ("http" | "https")), Some(host), Some(port)) => {
            Ok((scheme == "https", format!("{host}:{port}")))
        }
        _ => bail!("{url} is not of the form http://host:port or https://host:port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_with_host_and_port_are_accepted() {
        let parsed = |text: &str| Urls::parse(text).map(|urls| (urls.is_https, urls.targets.join(" ")));
        assert_eq!(parsed("http://message:50051").unwrap(), (false, "message:50051".into()));
        assert_eq!(parsed("https://a:1, https://[::1]:2").unwrap(), (true, "a:1 [::1]:2".into()));
        for bad in ["message:50051", "ftp://message:1", "http://message", "", "http://a:1,b", "http://a:1,https://b:2"]
        {
            assert!(urls(bad).is_err(), "{bad}");
        }
        assert_eq!(urls("http://a:1, http://b:2"), Ok("http://a:1, http://b:2".into()));
        assert_eq!(targets("http://a:1,http://b:2").unwrap(), ["a:1", "b:2"]);
        assert!(targets("https://a:1").unwrap_err().to_string().ends_with("of the form http://host:port"));
    }

    #[test]
    fn hosts_beyond_this_machine() {
        let beyond = |text: &str| Urls::parse(text).unwrap().beyond_loopback().cloned();
        assert_eq!(beyond("http://localhost:1,http://127.0.0.2:2,http://[::1]:3"), None);
        assert_eq!(beyond("http://127.0.0.1:1,http://room:2"), Some("room:2".into()));
        assert_eq!(beyond("http://[fd00::1]:1"), Some("[fd00::1]:1".into()));
    }
}
