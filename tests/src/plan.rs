//! The addresses and working directories of all programs.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

/// A kind of process in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The object store; it takes longest to start.
    S3,
    Postgres,
    Redis,
    Auth,
    Room,
    Message,
    File,
    Gateway,
    Lb,
}

impl Role {
    /// Every role, in the order of starting.
    pub const ALL: [Self; 9] = [
        Self::S3,
        Self::Postgres,
        Self::Redis,
        Self::Auth,
        Self::Room,
        Self::Message,
        Self::File,
        Self::Gateway,
        Self::Lb,
    ];
    /// The servers that the services need.
    pub const SERVERS: [Self; 3] = [Self::S3, Self::Postgres, Self::Redis];
    /// The services behind the gateways.
    pub const SERVICES: [Self; 4] = [Self::Auth, Self::Room, Self::Message, Self::File];

    /// Returns the name in paths and listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Auth => "auth",
            Self::Room => "room",
            Self::Message => "message",
            Self::File => "file",
            Self::Gateway => "gateway",
            Self::Lb => "lb",
        }
    }

    /// Returns whether it is a program of this workspace, which has an admin port.
    pub fn is_ours(self) -> bool {
        self == Self::Gateway || Self::SERVICES.contains(&self)
    }
}

/// One process: a role and its number, from 1.
pub type Member = (Role, u16);

/// Maximum gateways, and maximum replicas of a service, for which the fixed ports have room.
pub const MAX_REPLICAS: u16 = 9;

/// The layout of a cluster on this machine.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The directory of the whole cluster.
    pub directory: PathBuf,
    /// The number of gateways.
    pub gateways: u16,
    /// The number of replicas of each service.
    pub replicas: u16,
    ports: Ports,
}

#[derive(Debug, Clone, Copy)]
enum Ports {
    /// The documented ports: load balancer 8080, gateways 8081…, services 7111… / 7121… / 7131… / 7141…, admin 7201… /
    /// 7211… / 7221… / 7231… / 7241…, between gateways 7251…, Postgres 7432, Redis 7379, S3 7333 (and 7334… within it).
    Fixed,
    /// A free block, beginning with this port.
    Block(u16),
}

impl Plan {
    /// Plans a cluster on the documented ports.
    pub fn fixed(directory: impl Into<PathBuf>, gateways: u16, replicas: u16) -> Self {
        Self { directory: directory.into(), gateways, replicas, ports: Ports::Fixed }
    }

    /// Plans a cluster on free ports.
    ///
    /// # Errors
    /// When no free block is found.
    pub fn free(directory: impl Into<PathBuf>, gateways: u16, replicas: u16) -> anyhow::Result<Self> {
        Ok(Self { directory: directory.into(), gateways, replicas, ports: Ports::Block(free_ports(160)?) })
    }

    /// Returns every process, in the order of starting.
    pub fn members(&self) -> Vec<Member> {
        Role::ALL.into_iter().flat_map(|role| (1..=self.count(role)).map(move |n| (role, n))).collect()
    }

    /// Returns how many processes a role has.
    pub fn count(&self, role: Role) -> u16 {
        match role {
            Role::Postgres | Role::Redis | Role::S3 | Role::Lb => 1,
            Role::Gateway => self.gateways,
            Role::Auth | Role::Room | Role::Message | Role::File => self.replicas,
        }
    }

    /// Returns the port that a process serves.
    pub fn port(&self, (role, n): Member) -> u16 {
        match self.ports {
            Ports::Block(first) => first + role as u16 * 10 + n,
            Ports::Fixed => match role {
                Role::Postgres => 7432,
                Role::Redis => 7379,
                Role::S3 => 7333,
                Role::Auth => 7110 + n,
                Role::Room => 7120 + n,
                Role::Message => 7130 + n,
                Role::File => 7140 + n,
                Role::Gateway => 8080 + n,
                Role::Lb => 8080,
            },
        }
    }

    /// Returns the port of `/readyz` and `/metrics` of a Confab program.
    pub fn admin_port(&self, (role, n): Member) -> u16 {
        let row = match role {
            Role::Auth => 1,
            Role::Room => 2,
            Role::Message => 3,
            Role::File => 4,
            _ => 0,
        };
        match self.ports {
            Ports::Block(first) => first + 100 + row * 10 + n,
            Ports::Fixed => 7200 + row * 10 + n,
        }
    }

    /// Returns the port on which other gateways reach a gateway.
    pub fn forward_port(&self, n: u16) -> u16 {
        match self.ports {
            Ports::Block(first) => first + 150 + n,
            Ports::Fixed => 7250 + n,
        }
    }

    /// Returns the directory in which only this process works, and which identifies it.
    pub fn work(&self, (role, n): Member) -> PathBuf {
        self.directory.join("data").join(format!("{}-{n}", role.name()))
    }

    /// Returns the base URL of a process with an HTTP or gRPC port. Services have certificates.
    pub fn url(&self, member: Member) -> String {
        let scheme = if Role::SERVICES.contains(&member.0) { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port(member))
    }

    /// Returns the directory of the programs' certificates.
    pub fn certificates(&self) -> PathBuf {
        self.directory.join("tls")
    }

    /// Returns the directory of keys and passwords.
    pub fn secrets(&self) -> PathBuf {
        self.directory.join("secrets")
    }
}

/// Returns a file name for a process, such as `gateway-1.pid`.
pub fn file(directory: &Path, (role, n): Member, suffix: &str) -> PathBuf {
    directory.join(format!("{}-{n}.{suffix}", role.name()))
}

/// Returns the first of `count` consecutive ports that are free on loopback. They lie below the system's range for
/// outgoing connections, so that a restarted process finds its port still free.
///
/// # Errors
/// When there are no such ports.
pub fn free_ports(count: u16) -> anyhow::Result<u16> {
    // Each call continues where the last one ended, so that two calls in a process collide only after all ports were
    // tried.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id() % 97 * 190;
    let next = || NEXT.fetch_add(count.into(), Ordering::Relaxed);
    (0..19_000 / count)
        .map(|_| 11_000 + (own.wrapping_add(next()) % u32::from(19_000 - count)) as u16)
        .find(|first| (*first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
        .with_context(|| format!("there are no {count} consecutive free ports"))
}
