//! Which names in certificates have which roles.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::role::{Role, Roles};

/// The names of programs in certificates: subject alternative names that are DNS names or URIs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerNames {
    configured: Vec<(Role, String)>,
    /// The trust domains in which the usual SPIFFE ids have a role.
    domains: Vec<String>,
}

impl PeerNames {
    /// Parses `role=name,role=name`; a value parser for clap.
    ///
    /// # Errors
    /// When an entry has no role or no name. The message contains examples.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entry = |entry: &str| {
            let (role, name) = entry.split_once('=')?;
            let name = Some(name.trim()).filter(|name| !name.is_empty() && !name.contains(char::is_whitespace))?;
            Some((Role::parse(role.trim())?, name.to_owned()))
        };
        let entries = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        let names = entries.map(|text| entry(text).ok_or(text)).collect::<Result<_, _>>();
        let of = |configured| Self { configured, domains: Vec::new() };
        names.map(of).map_err(|wrong| {
            format!(
                "`{wrong}` must be a role (gateway, auth, room, message, file), `=` and a name in certificates: \
                 gateway=gateway.confab, or gateway=spiffe://example.org/ns/chat/sa/gateway"
            )
        })
    }

    /// Trusts the SPIFFE trust domains of a program's own certificate: others may issue the usual ids to other programs.
    ///
    /// # Errors
    /// When the certificate is malformed.
    pub(super) fn in_domains_of(&self, own: &CertificateDer<'_>) -> Result<Self, webpki::Error> {
        let own = EndEntityCert::try_from(own)?;
        let domains = own.valid_uri_names().filter_map(spiffe).map(|(domain, _)| domain.to_owned()).collect();
        Ok(Self { configured: self.configured.clone(), domains })
    }

    /// Returns the roles of a certificate, which must be verified already.
    ///
    /// # Errors
    /// When the certificate is malformed.
    pub(super) fn roles(&self, certificate: &CertificateDer<'_>) -> Result<Roles, webpki::Error> {
        let certificate = EndEntityCert::try_from(certificate)?;
        let dns = certificate.valid_dns_names().flat_map(|name| self.of_dns(name));
        let uris = certificate.valid_uri_names().flat_map(|name| self.of_uri(name));
        Ok(dns.chain(uris).collect())
    }

    fn of_dns(&self, name: &str) -> Vec<Role> {
        let usual = |role: Role| name.strip_suffix(".confab").is_some_and(|first| first == role.name());
        self.of(|known| known.eq_ignore_ascii_case(name), usual)
    }

    fn of_uri(&self, uri: &str) -> Vec<Role> {
        let path = spiffe(uri).filter(|(domain, _)| self.domains.iter().any(|own| own == domain)).map(|(_, path)| path);
        let last = path.and_then(|path| path.rsplit('/').next());
        let usual = |role: Role| last.is_some_and(|last| last.strip_prefix("confab-").unwrap_or(last) == role.name());
        self.of(|known| known == uri, usual)
    }

    /// A role with configured names has only those.
    fn of(&self, is: impl Fn(&str) -> bool, is_usual: impl Fn(Role) -> bool) -> Vec<Role> {
        let has = |role: &Role| {
            let mut names = self.configured.iter().filter(|(of, _)| of == role).peekable();
            if names.peek().is_some() { names.any(|(_, known)| is(known)) } else { is_usual(*role) }
        };
        Role::ALL.into_iter().filter(has).collect()
    }
}

/// Splits a SPIFFE id into its trust domain and its path.
fn spiffe(uri: &str) -> Option<(&str, &str)> {
    uri.strip_prefix("spiffe://")?.split_once('/')
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::testing::Authority;

    #[test]
    fn usual_names() {
        let names = PeerNames { domains: vec!["a".into()], ..PeerNames::default() };
        assert_eq!(names.of_dns("room.confab"), [Role::Room]);
        for id in ["spiffe://a/ns/chat/sa/confab-room", "spiffe://a/room", "spiffe://a/ns/x/sa/room"] {
            assert_eq!(names.of_uri(id), [Role::Room], "{id}");
        }
        for id in ["spiffe://cluster.local/ns/x/sa/room", "spiffe://a.example/room", "spiffe:///a/room"] {
            assert_eq!(names.of_uri(id), [], "of another trust domain: {id}");
        }
        for other in ["room", "confab", "room.confab.example.org", "x.room.confab", "*.confab", "tea.confab"] {
            assert_eq!(names.of_dns(other), [], "{other}");
        }
        for other in ["spiffe://room", "spiffe://a/room/", "spiffe://a/room/x", "https://a/room", "spiffe://a/my-room"]
        {
            assert_eq!(names.of_uri(other), [], "{other}");
        }
    }

    #[test]
    fn configured_names_replace_the_usual_names_of_their_role() {
        let names = PeerNames::parse("gateway=gateway.confab, gateway=bot.example.org,room=spiffe://a/b,").unwrap();
        assert_eq!(names.of_dns("Bot.Example.org"), [Role::Gateway]);
        assert_eq!(names.of_dns("gateway.confab"), [Role::Gateway]);
        assert_eq!(names.of_uri("spiffe://a/gateway"), []);
        assert_eq!((names.of_uri("spiffe://a/b"), names.of_dns("room.confab")), (vec![Role::Room], vec![]));
        assert_eq!(names.of_dns("file.confab"), [Role::File]);
        assert_eq!(PeerNames::parse(""), Ok(PeerNames::default()));
        for bad in ["gateway", "gateway=", "tea=a.example", "gateway=a b", "=a"] {
            assert!(PeerNames::parse(bad).unwrap_err().starts_with(&format!("`{bad}` must be a role")), "{bad}");
        }
    }

    #[test]
    fn a_certificate_has_the_roles_of_all_its_names() {
        let authority = Authority::new();
        let certificate = |names: &str| CertificateDer::from_pem_file(authority.issue(names).0).unwrap();
        let own = certificate("DNS:room.confab,URI:spiffe://a/sa/room");
        let roles = |names: &str| PeerNames::default().in_domains_of(&own).unwrap().roles(&certificate(names)).unwrap();
        assert_eq!(roles("URI:spiffe://b/sa/file"), Roles::NONE);
        let own = certificate("DNS:room.confab");
        let without_domain = PeerNames::default().in_domains_of(&own).unwrap();
        assert_eq!(without_domain.roles(&certificate("URI:spiffe://a/sa/file")).unwrap(), Roles::NONE);
        assert_eq!(roles("DNS:room.confab"), Roles::from(Role::Room));
        assert_eq!(roles("URI:spiffe://a/sa/file,DNS:x.example"), Roles::from(Role::File));
        assert_eq!(roles("DNS:auth.confab,URI:spiffe://a/sa/file"), [Role::Auth, Role::File].into_iter().collect());
        assert_eq!(roles("IP:127.0.0.1"), Roles::NONE);
        assert_eq!(roles("DNS:*.confab"), Roles::NONE);
    }
}
