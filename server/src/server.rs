//! A whole broker in this process: bound sockets, worker threads, and the way to end them.

use crate::admission::Counts;
use crate::auth::{Hasher, Security};
use crate::budget::Budget;
use crate::census::Census;
use crate::clock::Clock;
use crate::config::{Limits, ListenerSettings, PersistenceSettings, Problem, Settings, Severity};
use crate::hold::Hold;
use crate::inherited::{Inherited, deal};
use crate::letter::Letter;
use crate::listener::{Bound, bind, explain};
use crate::store::{Opened, StoreError};
use crate::transport::{Certificates, Gates};
use crate::wake::{Letterbox, mailbox};
use crate::worker::{Common, MAILBOX, Seat, Worker};
use hikyaku_proto::broker::{Config, Placement, SHARDS_MAX, Shard, ShardId};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What a [`Server`] is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen, and for what: at least one. The index of a listener is also its index in
    /// [`Config::listeners`].
    pub listeners: Vec<ListenerSettings>,
    /// How many threads, each with a shard of the sessions: brought into 1 to
    /// [`SHARDS_MAX`]. By default one for two cores: the other is for the kernel's part and for the clients.
    pub workers: u16,
    /// How many clients may be connected at once, to all listeners together.
    pub max_connections: Option<u32>,
    /// What else is limited for all clients together.
    pub limits: Limits,
    /// How to treat clients.
    pub config: Config,
    /// Who may come in: what [`Security::load`] made of the same listeners as `config`.
    pub security: Security,
    /// What [`Certificates::load`] made of the same listeners; `None` to do so when ports are opened.
    pub certificates: Option<Certificates>,
    /// What is kept on disk.
    pub persistence: PersistenceSettings,
    /// Without `certificates`, a file to which the secrets of TLS connections are appended, for debugging:
    /// whoever has them reads along.
    pub tls_keylog: Option<PathBuf>,
    /// Makes newcomers wait for a reload.
    pub hold: Hold,
}

impl Default for Options {
    /// One worker, and no listener yet.
    fn default() -> Self {
        Options {
            listeners: Vec::new(),
            workers: 1,
            max_connections: None,
            limits: Limits::default(),
            config: Config::default(),
            security: Security::default(),
            certificates: None,
            persistence: PersistenceSettings::default(),
            tls_keylog: None,
            hold: Hold::default(),
        }
    }
}

/// A running broker. Dropping it ends it, like [`Server::shutdown`].
#[derive(Debug)]
pub struct Server {
    local_addrs: Vec<SocketAddr>,
    remote: Remote,
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// Ends when all others have.
    store: Option<JoinHandle<io::Result<()>>>,
}

/// Asks a [`Server`] to end, from anywhere.
#[derive(Clone)]
pub struct Remote {
    counts: Counts,
    budget: Budget,
    letterboxes: Arc<[Letterbox<Letter>]>,
    gates: Arc<Gates>,
    /// What holds now.
    security: Arc<Mutex<Arc<Security>>>,
}

/// Why a [`Server`] does not start.
#[derive(Debug)]
pub enum StartError {
    /// This address cannot be listened on: it is in use, not ours, or not permitted.
    Listen {
        /// The address, or the path of the unix socket.
        address: String,
        /// The system's word.
        cause: io::Error,
    },
    /// A socket was inherited that belongs to no listener.
    Inherited(String),
    /// There is no address to listen on.
    NoEndpoint,
    /// What was configured cannot be used: a certificate, for instance.
    Settings(Problem),
    /// What was kept cannot be read, or nothing be kept.
    Store(StoreError),
    /// The system refuses threads, descriptors or random numbers.
    System(io::Error),
}

/// A [`Server`] whose ports are open, and whose threads do not run yet: the moment to give up privileges.
#[derive(Debug)]
pub struct Bindings {
    bound: Vec<Bound>,
    counts: Counts,
    budget: Budget,
    pending_connections: Option<u32>,
    hold: Hold,
    gates: Gates,
    workers: u16,
    config: Config,
    security: Security,
    persistence: PersistenceSettings,
}

impl Options {
    /// What `settings` ask for; `security` is what [`Security::load`] made of them.
    pub fn from_settings(settings: &Settings, security: Security) -> Options {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let workers = settings.workers.unwrap_or((cores / 2).clamp(1, SHARDS_MAX.into()) as u16);
        let (listeners, config) = (settings.listeners.clone(), settings.core.clone());
        let (max_connections, persistence) = (settings.max_connections, settings.persistence.clone());
        let limits = settings.limits.clone();
        let rest = Options::default();
        Options { listeners, workers, max_connections, limits, config, security, persistence, ..rest }
    }
}

impl Bindings {
    /// Reads certificates and binds all endpoints. Who connects now waits.
    ///
    /// # Errors
    /// If a certificate cannot be used, or an address cannot be bound.
    pub fn open(options: Options) -> Result<Bindings, StartError> {
        Bindings::inherit(options, Vec::new())
    }

    /// As [`Bindings::open`], with sockets that someone else has opened in the place of those listeners, or
    /// addresses of listeners, that they belong to.
    ///
    /// # Errors
    /// Also if one of `sockets` belongs to no listener.
    pub fn inherit(options: Options, sockets: Vec<Inherited>) -> Result<Bindings, StartError> {
        let dealt = deal(sockets, &options.listeners).map_err(StartError::Inherited)?;
        let certificates = match options.certificates {
            Some(certificates) => certificates,
            None => read(&options.listeners, options.tls_keylog.as_deref())?,
        };
        let mut bound = Vec::new();
        let counts = Counts::new(options.listeners.len());
        let each = options.listeners.iter().map(|l| l.max_connections);
        counts.limit(options.max_connections, &options.limits, each);
        for ((settings, listener), sockets) in options.listeners.iter().zip(0..).zip(dealt) {
            let listen = |(address, cause)| StartError::Listen { address, cause };
            bound.extend(bind(settings, listener, &counts.of(listener), sockets).map_err(listen)?);
        }
        if bound.is_empty() {
            return Err(StartError::NoEndpoint);
        }
        let Options { workers, config, security, persistence, .. } = options;
        let (gates, workers) = (Gates::new(certificates), workers.clamp(1, SHARDS_MAX));
        let (budget, pending_connections) =
            (Budget::new(options.limits.memory), options.limits.pending_connections);
        Ok(Bindings {
            bound,
            counts,
            budget,
            pending_connections,
            hold: options.hold,
            gates,
            workers,
            config,
            security,
            persistence,
        })
    }

    /// Reads what was kept, and starts the workers.
    ///
    /// # Errors
    /// If that cannot be read, or the system is short of something.
    pub fn start(self) -> Result<Server, StartError> {
        Server::run(self)
    }
}

impl Server {
    /// Binds all endpoints and starts the workers. Clients are accepted when this returns.
    ///
    /// # Errors
    /// If a certificate cannot be used, an address cannot be bound, or the system is short of something; nothing is left behind then.
    pub fn start(options: Options) -> Result<Server, StartError> {
        Bindings::open(options)?.start()
    }

    fn run(bindings: Bindings) -> Result<Server, StartError> {
        let Bindings { bound, counts, budget, pending_connections, hold, .. } = bindings;
        let Bindings { gates, workers, config, security, persistence, .. } = bindings;
        let local_addrs = bound.iter().filter_map(|b| b.address).collect();
        let (clock, gates) = (Clock::start(), Arc::new(gates));
        let config = Arc::new(config);
        let security = Arc::new(security);
        let hasher = Arc::new(Hasher::new());
        let opened = persistence.enabled.then(|| Opened::open(&persistence)).transpose()?;
        let key = opened.as_ref().map_or_else(random, |opened| Ok(opened.placement_key()))?;
        let placement = Arc::new(Placement::new(key, workers));
        let mut shards = Vec::new();
        for id in 0..workers as ShardId {
            let (config, placement) = (Arc::clone(&config), Arc::clone(&placement));
            shards.push(Shard::new(id, workers, random()?, config, placement, clock.now()));
        }
        let store = opened.map(|opened| opened.recover(&mut shards, &placement, clock)).transpose()?;
        let census = Census::new(workers);
        let mut seats = Vec::new();
        let mut letterboxes = Vec::new();
        for shard in shards {
            let poll = mio::Poll::new()?;
            let (letterbox, mailbox) = mailbox(poll.registry(), MAILBOX)?;
            letterboxes.push(letterbox);
            seats.push(Seat { shard, poll, mailbox });
        }
        let letterboxes: Arc<[_]> = letterboxes.into();
        let remote = Remote {
            counts,
            budget: budget.clone(),
            letterboxes: letterboxes.clone(),
            gates: gates.clone(),
            security: Arc::new(Mutex::new(security.clone())),
        };
        let store = store.map(|store| store.start(letterboxes.clone())).transpose()?;
        let (store, store_thread) = store.unzip();
        let mut server = Server { local_addrs, remote, threads: vec![], store: store_thread };
        let common = Common {
            gates,
            config,
            security,
            hasher,
            placement,
            letterboxes,
            census,
            budget,
            pending_connections,
            hold,
            clock,
            store,
        };
        // Whoever listens accepts for all. One is enough: it hands connections over to their homes.
        let mut bound = Some(bound);
        for seat in seats {
            let name = format!("worker {}", seat.shard.id());
            let bound = bound.take().unwrap_or_default();
            let worker = Worker::new(seat, bound, common.clone())?;
            server.threads.push(std::thread::Builder::new().name(name).spawn(|| run(worker))?);
        }
        Ok(server)
    }

    /// The addresses that are listened on, with their real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Something to end the server with from another thread.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Waits until the server has ended, which takes a [`Remote::shutdown`].
    ///
    /// # Errors
    /// If the system let a worker down; the others have then ended too.
    pub fn wait(mut self) -> io::Result<()> {
        self.join()
    }

    /// Says goodbye to all clients, closes everything, and waits for it.
    ///
    /// # Errors
    /// As for [`Server::wait`].
    pub fn shutdown(mut self) -> io::Result<()> {
        self.remote.shutdown();
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for thread in self.threads.drain(..).chain(self.store.take()) {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
            result = result.and(ended);
        }
        result
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remote.shutdown();
        let _ = self.join();
    }
}

impl Remote {
    /// Gives the server another configuration, made of the same listeners. Returns at once. Connections stay,
    /// but for those whose user would not be let in any more.
    pub fn configure(&self, config: Config, security: Security) {
        let security = Arc::new(security);
        let mut current = self.security.lock().unwrap_or_else(PoisonError::into_inner);
        let revoked = current.revoked_by(&security).into_iter().map(Arc::new).collect::<Arc<[_]>>();
        *current = Arc::clone(&security);
        let config = Arc::new(config);
        // Under the lock, so that of two calls the later one is the later for each worker.
        self.tell_all(|| Letter::Configured {
            config: Arc::clone(&config),
            security: Arc::clone(&security),
            revoked: Arc::clone(&revoked),
        });
    }

    /// How many connections there may be from now on: in all, and at each listener; and how much of what else is limited
    /// for all. Who is there stays.
    pub fn limit(&self, max_connections: Option<u32>, limits: &Limits, listeners: &[ListenerSettings]) {
        self.counts.limit(max_connections, limits, listeners.iter().map(|l| l.max_connections));
        self.budget.limit(limits.memory);
    }

    /// Waits until each worker has turned: served what it had and looked for more. False if one has ended.
    pub fn await_turn(&self) -> bool {
        let (answer, answers) = crossbeam_channel::bounded(self.letterboxes.len());
        self.tell_all(|| Letter::Roll(answer.clone()));
        drop(answer);
        self.letterboxes.iter().all(|_| answers.recv().is_ok())
    }

    /// Tells the server to end. Returns at once.
    pub fn shutdown(&self) {
        self.tell_all(|| Letter::Shutdown);
    }

    fn tell_all(&self, letter: impl Fn() -> Letter) {
        for letterbox in &*self.letterboxes {
            // A worker that has ended needs no telling.
            let _ = letterbox.post(letter());
            letterbox.ring();
        }
    }

    /// Reads all certificates again, for TLS handshakes from now on. Those connected stay. Where a file
    /// is bad, the listener keeps what it has; returned is what was wrong or remarkable.
    pub fn reload_certificates(&self) -> Vec<Problem> {
        self.gates.reload(|_| true).unwrap_or_default()
    }

    /// As [`Remote::reload_certificates`], for those listeners whose files have changed since they were
    /// read, as [`Watch::changed`](crate::Watch::changed) names them: to be called now and then. Returns these files too, or
    /// `None` if there are none.
    pub fn reload_changed_certificates(&self) -> Option<(Vec<PathBuf>, Vec<Problem>)> {
        self.gates.reload_changed()
    }

    /// As [`Certificates::load`], with the key log of the start: for [`Remote::use_certificates`].
    ///
    /// # Errors
    /// As there.
    pub fn load_certificates(
        &self,
        listeners: &[ListenerSettings],
    ) -> Result<(Certificates, Vec<Problem>), Vec<Problem>> {
        self.gates.load(listeners)
    }

    /// Changes what listeners speak, and the certificates they show, for connections that come from now on.
    /// Those connected stay as they are.
    pub fn use_certificates(&self, certificates: Certificates) {
        self.gates.replace(certificates);
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen { address, cause } if cause.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "Permission denied: cannot listen on {address} ({cause}).{}",
                    explain(address, cause)
                )
            }
            StartError::Listen { address, cause } => {
                write!(f, "Cannot listen on {address}: {cause}.{}", explain(address, cause))
            }
            StartError::Settings(problem) => problem.fmt(f),
            StartError::Inherited(what) => f.write_str(what),
            StartError::Store(e) => e.fmt(f),
            StartError::NoEndpoint => f.write_str("There is no address to listen on."),
            StartError::System(cause) => write!(f, "Cannot start: {cause}."),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Listen { cause, .. } | StartError::System(cause) => Some(cause),
            StartError::Store(e) => Some(e),
            StartError::Inherited(_) | StartError::NoEndpoint | StartError::Settings(_) => None,
        }
    }
}

impl From<StoreError> for StartError {
    fn from(e: StoreError) -> Self {
        StartError::Store(e)
    }
}

impl From<io::Error> for StartError {
    fn from(e: io::Error) -> Self {
        StartError::System(e)
    }
}

/// Reads certificates, and says what is remarkable about them.
fn read(listeners: &[ListenerSettings], keylog: Option<&Path>) -> Result<Certificates, StartError> {
    let (certificates, remarks) = Certificates::load(listeners, keylog).map_err(|problems| {
        let error = problems.into_iter().find(|p| p.severity == Severity::Error);
        error.map_or(StartError::NoEndpoint, StartError::Settings)
    })?;
    remarks.iter().for_each(|remark| log::warn!("{}", remark.message));
    Ok(certificates)
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

fn run(worker: Worker) -> io::Result<()> {
    /// Half-changed state is worse than none: a panic in a shard ends the process, and what was stored
    /// is the recovery.
    struct AbortOnPanic;
    impl Drop for AbortOnPanic {
        fn drop(&mut self) {
            if std::thread::panicking() {
                log::error!("A worker panicked; this is a bug. The broker ends.");
                std::process::abort();
            }
        }
    }
    let _guard = AbortOnPanic;
    let result = worker.run();
    if let Err(e) = &result {
        log::error!("A worker has to end: {e}.");
    }
    result
}
