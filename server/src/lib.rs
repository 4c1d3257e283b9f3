//! An MQTT broker: the protocol core of [`hikyaku_proto`] driven by one mio event loop per worker.
//!
//! ```
//! use hikyaku::config::{Endpoint, ListenerSettings};
//! use hikyaku::{Options, Server};
//!
//! let endpoint = Endpoint::Tcp { addresses: vec![([127, 0, 0, 1], 0).into()] };
//! let listeners = vec![ListenerSettings { endpoint, ..Default::default() }];
//! let server = Server::start(Options { listeners, workers: 2, ..Default::default() })?;
//! println!("mqtt://{}", server.local_addrs()[0]);
//! server.shutdown()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A worker is one thread with one [`mio::Poll`] and one [`Shard`](hikyaku_proto::broker::Shard), which
//! it drives as the shard's contract says: hand in what happened, poll all outputs, write, wait.
//! Workers share nothing; they post letters to each other. A connection belongs to the shard its client
//! id hashes to: whoever accepts it reads until the CONNECT is there, then hands it over whole.

mod admission;
pub mod auth;
mod budget;
mod census;
#[doc(hidden)]
pub mod check;
mod clock;
pub mod config;
mod connection;
mod file;
mod foresight;
mod hold;
mod import;
mod inherited;
mod letter;
mod listener;
mod lobby;
mod refusal;
mod server;
mod store;
mod transport;
mod user;
mod wake;
mod watch;
mod worker;

pub use foresight::foresee;
pub use hold::Hold;
pub use import::{ImportError, MosquittoDb, Summary};
pub use inherited::Inherited;
pub use server::{Bindings, Options, Remote, Server, StartError};
pub use store::{Rescued, StoreError, rescue};
pub use transport::Certificates;
pub use user::{Obstacle, User, unwritable};
pub use watch::Watch;
