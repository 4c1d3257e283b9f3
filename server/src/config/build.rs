//! From a draft to settings.

use super::draft::{Domain, Door, Draft, PORT, Security};
use super::settings::{
    Endpoint, ListenerSettings, LogDestination, Problem, SecuritySettings, Settings, Severity, TlsSettings,
};
use hikyaku_proto::broker::{Authentication, Listener};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// The smallest bound at which a slow client is not read from any more.
const OUTPUT_HARD_MIN: usize = 4 << 20;

/// Makes settings of a draft; what cannot be made is a problem more.
pub(super) fn build(mut draft: Draft, ports: &[u16]) -> (Settings, Vec<Problem>) {
    let local_only = draft.is_local_only();
    let mut made = if local_only { local(&mut draft, ports) } else { doors(&mut draft) };
    if !local_only {
        for &port in ports {
            if !made.iter().any(|(l, _)| is_at(l, port)) {
                let security = draft.security.clone();
                made.push(listener(
                    &draft,
                    Door { port, security, ..Door::default() },
                    loopback(port),
                    false,
                ));
            }
        }
    }
    let (listeners, cores) = made.into_iter().unzip();
    let user_at = draft.seen_at("user", 0);
    let problems = draft.finish();
    let Draft { mut core, mut log, .. } = draft;
    core.listeners = cores;
    core.output_hard_bytes = draft
        .output_hard_bytes
        .unwrap_or_else(|| OUTPUT_HARD_MIN.max((core.max_packet_size as usize).saturating_mul(2)))
        .max(core.output_soft_bytes);
    if let Some(bytes) = draft.max_queued_bytes {
        (core.max_queued_bytes, core.max_stored_bytes) = (bytes, bytes);
    }
    if let Some(prefix) = &draft.security.settings.auto_id_prefix {
        core.auto_id_prefix = prefix.clone();
    }
    for destination in &mut log.destinations {
        if let LogDestination::Syslog { facility } = destination {
            *facility = draft.log_facility;
        }
    }
    let settings = Settings {
        listeners,
        core,
        per_listener_settings: draft.per_listener,
        security: draft.security.settings,
        log,
        user_at,
        user: draft.user,
        reload_interval_s: draft.reload_interval_s,
        pid_file: draft.pid_file,
        persistence: draft.persistence,
        max_connections: draft.max_connections,
        limits: draft.limits,
        workers: draft.workers,
    };
    (settings, problems)
}

/// Puts listeners like the first at `endpoints`, in the place of all.
pub(super) fn move_to(
    settings: &mut Settings,
    endpoints: impl IntoIterator<Item = Endpoint>,
) -> Vec<Problem> {
    let cores = std::mem::take(&mut settings.core.listeners);
    let all = std::mem::take(&mut settings.listeners);
    let Some(first) = all.into_iter().zip(cores).next() else { return Vec::new() };
    let mut problems = Vec::new();
    for endpoint in endpoints {
        let (mut listener, mut core) = first.clone();
        listener.endpoint = endpoint;
        listener.local_only_default = listener.is_local();
        if !listener.local_only_default {
            core.authentication = Authentication::Ask;
            let message = format!(
                "Other machines can reach {}, and there is no configuration that says who may connect: nobody may. \
                 Write one, and start with '-c FILE'.",
                listener.endpoint
            );
            problems.push(Problem { at: None, severity: Severity::Warning, message });
        }
        settings.listeners.push(listener);
        settings.core.listeners.push(core);
    }
    problems
}

impl Draft {
    /// Whether nothing was said about listening: only this machine may connect then.
    pub(super) fn is_local_only(&self) -> bool {
        !self.default_is_open && self.doors.len() == usize::from(self.default.is_some())
    }

    /// The security options that hold for a door.
    pub(super) fn security_of(&self, door: &Door) -> Security {
        let own = &door.security;
        let all = if self.per_listener { &Security::default() } else { &self.security };
        let or = |own: &Option<String>, all: &Option<String>| own.clone().or_else(|| all.clone());
        let settings = SecuritySettings {
            allow_anonymous: own.settings.allow_anonymous.or(all.settings.allow_anonymous),
            password_file: own.settings.password_file.clone().or_else(|| all.settings.password_file.clone()),
            acl_file: own.settings.acl_file.clone().or_else(|| all.settings.acl_file.clone()),
            // This one is about all listeners at any rate.
            clientid_prefixes: self.security.settings.clientid_prefixes.clone(),
            auto_id_prefix: or(&own.settings.auto_id_prefix, &all.settings.auto_id_prefix),
        };
        let allow_zero_length_clientid = own.allow_zero_length_clientid.or(all.allow_zero_length_clientid);
        Security { settings, allow_zero_length_clientid }
    }
}

type Made = (ListenerSettings, Listener);

/// The listeners that stand without being configured.
fn local(draft: &mut Draft, ports: &[u16]) -> Vec<Made> {
    let door = draft.default.and_then(|i| draft.doors.get_mut(i)).map(std::mem::take).unwrap_or_default();
    let made = listener(draft, door, Vec::new(), true);
    let ports = if ports.is_empty() { &[PORT][..] } else { ports };
    let at_port = |&port: &u16| {
        let (mut settings, core) = made.clone();
        settings.endpoint = Endpoint::Tcp { addresses: loopback(port) };
        (settings, core)
    };
    ports.iter().map(at_port).collect()
}

fn loopback(port: u16) -> Vec<SocketAddr> {
    let hosts = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    hosts.map(|host| SocketAddr::new(host, port)).into()
}

fn doors(draft: &mut Draft) -> Vec<Made> {
    let doors = std::mem::take(&mut draft.doors);
    let mut made = Vec::new();
    for door in doors {
        let addresses = match addresses(&door) {
            Ok(addresses) => addresses,
            Err(message) => {
                draft.say_at(door.at.clone(), Severity::Error, message);
                continue;
            }
        };
        let new = listener(draft, door, addresses, false);
        if let Some((first, _)) = made.iter().find(|(l, _): &&Made| overlap(&l.endpoint, &new.0.endpoint)) {
            let place = first.at.as_ref().map_or(String::new(), |at| format!(" by the listener at {at}"));
            let message = format!("{} is already listened on{place}.", new.0.endpoint);
            draft.say_at(new.0.at.clone(), Severity::Error, message);
        }
        made.push(new);
    }
    made
}

/// Whether two endpoints cannot both be bound.
fn overlap(a: &Endpoint, b: &Endpoint) -> bool {
    let same = |a: &SocketAddr, b: &SocketAddr| {
        let any = a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() == b.port() && (a.ip() == b.ip() || any && a.is_ipv4() == b.is_ipv4())
    };
    match (a, b) {
        (Endpoint::Tcp { addresses: a }, Endpoint::Tcp { addresses: b }) => {
            a.iter().any(|a| b.iter().any(|b| same(a, b)))
        }
        (Endpoint::Unix(a), Endpoint::Unix(b)) => a == b,
        _ => false,
    }
}

/// The addresses to bind for a door.
fn addresses(door: &Door) -> Result<Vec<SocketAddr>, String> {
    let fits = |address: &SocketAddr| match door.domain {
        Some(Domain::Ipv4) => address.is_ipv4(),
        Some(Domain::Ipv6) => address.is_ipv6(),
        None => true,
    };
    let all = match &door.host {
        _ if door.unix.is_some() => return Ok(Vec::new()),
        None => {
            let hosts = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            hosts.map(|host| SocketAddr::new(host, door.port)).into()
        }
        Some(host) => {
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            let found = (bare, door.port).to_socket_addrs();
            let mut found: Vec<_> =
                found.map_err(|e| format!("Error resolving address '{host}'. {e}."))?.collect();
            found.sort();
            found.dedup();
            found
        }
    };
    let addresses: Vec<_> = all.into_iter().filter(fits).collect();
    match (addresses.is_empty(), &door.host) {
        (true, Some(host)) => Err(format!("'{host}' has no address of the 'socket_domain'.")),
        _ => Ok(addresses),
    }
}

fn listener(draft: &Draft, door: Door, addresses: Vec<SocketAddr>, local_only: bool) -> Made {
    let security = draft.security_of(&door);
    let mut settings = door.settings;
    settings.at = if local_only { None } else { door.at };
    settings.endpoint = match door.unix {
        Some(path) => Endpoint::Unix(path),
        None => Endpoint::Tcp { addresses },
    };
    settings.local_only_default = local_only;
    settings.tcp_nodelay = draft.tcp_nodelay;
    settings.websockets_headers_size = draft.websockets_headers_size;
    if let (Some((certfile, at)), Some((keyfile, _))) = (door.certfile, door.keyfile) {
        let path = |file: Option<(_, _)>| file.map(|(path, _)| path);
        settings.tls = Some(TlsSettings {
            certfile,
            keyfile,
            cafile: path(door.cafile),
            capath: path(door.capath),
            crlfile: path(door.crlfile),
            require_certificate: door.require_certificate.is_some(),
            disable_client_cert_date_checks: door.disable_client_cert_date_checks,
            use_identity_as_username: door.use_identity_as_username.is_some(),
            use_subject_as_username: door.use_subject_as_username.is_some(),
            tls_version: door.tls_version,
            ciphers: door.ciphers,
            ciphers_tls13: door.ciphers_tls13,
            at,
        });
    }
    settings.security = security.settings;
    let mut core = door.core;
    core.limits.allow_zero_length_clientid = security.allow_zero_length_clientid.unwrap_or(true);
    let asks = !settings.allows_anonymous() || settings.security.password_file.is_some();
    core.authentication = if asks { Authentication::Ask } else { Authentication::None };
    (settings, core)
}

/// Whether a listener has this port.
fn is_at(listener: &ListenerSettings, port: u16) -> bool {
    match &listener.endpoint {
        Endpoint::Tcp { addresses } => addresses.iter().any(|a| a.port() == port),
        Endpoint::Unix(_) => false,
    }
}
